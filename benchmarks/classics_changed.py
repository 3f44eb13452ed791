"""What of classics.py was changed after figures had been seen, in words, for the page to say."""

from __future__ import annotations

CHANGED = (
    "Trainings were made longer wherever a network had stopped short of the published test error, and the "
    "radius of FGSM and PGD training now rises over the first epochs: at eps .3 from the start those "
    "networks had not converged, so their first figures were not valid.",
    "Szegedy's distortion is to a label that is drawn, as D(x, l) in §4.1 takes one; at first it was the "
    "nearest class, which gave about half and is still told beside it. Noise goes onto training examples, "
    "as Table 2 says, and is not cut to the box.",
    "The autoencoder has the constants of the tutorial of the time and squared error; at first others and "
    "cross-entropy, under which noise fooled it three times as often.",
    "The RBF network has one unit a class and its own probability, as Goodfellow's; at first 100 units "
    "under a softmax layer.",
    "Transfer attacks, EOT and patches went from LeNet-5 on Fashion-MNIST to ResNet-20 on CIFAR-10, where "
    "success on the source comes near the published; the patch got 300 steps for 80, EOT eps 16/255.",
    "Universal patterns: DeepFool's rounds at eps .2 for .1, and on CIFAR-10 eight epochs by gradient on "
    "1,000 pictures, at first four on 300.",
    "The smallest eps of FGSM is looked for from below: bisection had missed that of ResNet-20, where a "
    "longer step is not always worse.",
    "The substitute of a network is convolutional, as the paper's; at first it was LeNet-300-100, whose "
    "examples carried over more often.",
    "Examples are fewer and some trainings shorter than in a second measurement, which took 52 minutes.",
)
