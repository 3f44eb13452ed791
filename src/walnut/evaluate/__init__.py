"""The bench under the levers: accuracy, robustness, transfer, cost."""

from .accuracy import Robustness, Share, accuracy, correct, predict, robust_accuracy
from .cost import Cost, Latency, cost, latency
from .transfer import TransferTable, transfer_table
from .verdict import Verdict, robustness

__all__ = [
    "Cost",
    "Latency",
    "Robustness",
    "Share",
    "TransferTable",
    "Verdict",
    "accuracy",
    "correct",
    "cost",
    "latency",
    "predict",
    "robust_accuracy",
    "robustness",
    "transfer_table",
]
