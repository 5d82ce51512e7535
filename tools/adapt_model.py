r"""Adapts a model's last layer to noise, rooms, telephones and codecs: minutes, and no labels.

    python tools/fetch_campplus.py
    python tools/make_teacher.py dataset/train_list.txt
    python tools/adapt_model.py models/campplus_public.keras --teacher dataset/teacher.npz \
        --noise_dir noise --output models/adapted.keras

The last layer learns to say of a degraded crop what the teacher, the same model, says of the clean
utterance; then the mean embedding is subtracted. The rest of the network stays as it is and is
computed once for each crop. Thresholds go with the old layer: calibrate the new model with
tools/finish_model.py.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from utils.arguments import fraction, make_parser, non_negative_float, positive_int
from utils.corpus.lists import Utterance, read_data_list
from utils.crops.augment import AugmentSettings
from utils.crops.batches import BatchMaker, ReaderSettings
from utils.crops.teacher import TeacherTable
from utils.errors import DataListError, run_script
from utils.messages import translate

CLEAN = AugmentSettings(flip=0.0)

DEGRADED: dict[str, Any] = {
    "reverb": 0.3, "noise": 0.4, "babble": 0.55, "equalizer": 0.1, "gain": 0.05,
    "clipping": 0.05, "telephone": 0.5, "codec": 0.05, "flip": 0.0,
    "snr_db": (3.0, 20.0), "babble_snr_db": (3.0, 15.0),
}  # fmt: skip
"""Probabilities and strengths of `utils.crops.augment.AugmentSettings`."""


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("model_path", help="the .keras file to begin with")
    add("--train_list_path", default="dataset/train_list.txt", help="data list of speech")
    add("--teacher", required=True, help="file of tools/make_teacher.py")
    add("--noise_dir", default="", help="folder of noise recordings")
    add("--rir_dir", default="", help="folder of room impulse responses")
    add("--num_crops", type=positive_int, default=5504, help="degraded crops")
    add("--num_clean", type=positive_int, default=1600, help="clean crops")
    add("--num_steps", type=positive_int, default=700, help="steps of 256 crops")
    add("--contrast_weight", type=non_negative_float, default=1.0)
    add("--penalty", type=non_negative_float, default=0.01, help="weight of the squared change")
    add("--share", type=fraction, default=0.75, help="how far to go to the trained weights")
    add("--output", default="models/adapted.keras", help="the .keras file to write")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Adapts and writes; returns the exit status."""
    args = parse_args(argv)
    utterances = read_data_list(args.train_list_path)

    from utils.model.backend import start_backend

    start_backend()

    import numpy as np

    from utils.model.archive import load_network, write_model
    from utils.model.header import read_header
    from utils.training.adaptation import PooledCrops, adapt_last_layer, centred, pool_crops

    network = load_network(args.model_path)
    metadata = read_header(args.model_path).metadata

    def pool(augment: AugmentSettings, num_crops: int, seed: int) -> PooledCrops:
        settings = ReaderSettings(
            batch_size=min(32, num_crops), seed=seed, teacher=args.teacher, teacher_centroid=0.0,
            speed_change=0.0, augment=augment,
        )  # fmt: skip
        maker = BatchMaker(known, settings)
        return pool_crops(network, maker, -(-num_crops // settings.batch_size))

    known = utterances_of_teacher(utterances, args.teacher)
    noisy = AugmentSettings(**DEGRADED, noise_dir=args.noise_dir, rir_dir=args.rir_dir)
    degraded, clean = pool(noisy, args.num_crops, 1), pool(CLEAN, args.num_clean, 7)
    both = PooledCrops(
        np.concatenate([degraded.statistics, clean.statistics]),
        np.concatenate([degraded.labels, clean.labels]),
        np.concatenate([degraded.teachers, clean.teachers]),
    )
    adapt_last_layer(network, both, args.num_steps, args.contrast_weight, args.penalty, args.share)
    network = centred(network, clean)
    kept = ("architecture", "network", "embedding_size", "num_classes", "description")
    write_model(
        args.output, network, {key: metadata[key] for key in kept if key in metadata},
        half_precision=True,
    )  # fmt: skip
    summary = f"{args.output}: last layer adapted on {len(both.labels)} crops; not calibrated yet"
    print(translate(summary))
    return 0


def utterances_of_teacher(utterances: Sequence[Utterance], teacher_path: str) -> list[Utterance]:
    """Returns the utterances that a teacher file knows at their own speed.

    Raises:
        DataListError: If there are none.
    """
    table = TeacherTable(teacher_path)
    known = [utterance for utterance in utterances if 1.0 in table.find(utterance.path)]
    if not known:
        raise DataListError(
            f"{teacher_path}: knows none of {len(utterances)} utterances; make it from this list"
        )
    return known


if __name__ == "__main__":
    run_script(main)
