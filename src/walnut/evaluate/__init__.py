"""The bench under the levers: accuracy, robustness, transfer, cost."""

from .accuracy import Robustness, Share, accuracy, correct, predict, robust_accuracy
from .cost import Cost, Latency, cost, latency
from .transfer import TransferTable, transfer_table

__all__ = [
    "Cost",
    "Latency",
    "Robustness",
    "Share",
    "TransferTable",
    "accuracy",
    "correct",
    "cost",
    "latency",
    "predict",
    "robust_accuracy",
    "transfer_table",
]
