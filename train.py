"""Trains the voiceprint network on the lists that create_data.py wrote.

    python train.py                                    # all GPUs, or the CPU
    python train.py --gpu 0,1 --batch_size 128
    python train.py --resume models/resnet34-51.keras  # goes on where a training stopped

Labels of the lists are names or numbers; they are numbered without gaps and kept in the model.
An epoch ends with a checkpoint models/resnet34-EPOCH.keras, the accuracy on the test list and the
equal error rate (EER) of its speakers. Ctrl-C at any moment: go on with --resume.
"""

import argparse
import sys

from utils.arguments import make_parser, print_arguments
from utils.corpus.lists import read_training_lists, speakers_of
from utils.errors import run_script
from utils.messages import translate
from utils.training import options as training_options


def parse_args(argv: list[str] | None) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    """Declares and reads the options."""
    parser = make_parser(__doc__)
    training_options.add_options(parser)
    args = parser.parse_args(argv)
    training_options.check_options(parser, args)
    return parser, args


def main(argv: list[str] | None = None) -> int:
    """Trains; returns the exit status."""
    parser, args = parse_args(argv)
    print_arguments(args, training_options.BASELINE_OPTIONS, parser)
    train, test = read_training_lists(args.train_list_path, args.test_list_path)
    settings = training_options.to_settings(args)

    from utils.training.devices import select_devices
    from utils.training.run import TrainingRun, describe_checkpoint

    strategy = select_devices(args.gpu, args.precision)
    training = TrainingRun(
        train, test, settings, args.num_classes, args.resume, args.init, strategy,
        speakers_of(train, args.train_list_path),
    )  # fmt: skip
    try:
        if args.resume:
            print(translate(f"==> resuming from {describe_checkpoint(args.resume)}"))
        training.run()
    except KeyboardInterrupt:
        last = training.last_checkpoint
        advice = f"go on with --resume {last}" if last else "nothing was saved yet"
        print("\n" + translate(f"stopped; {advice}"), file=sys.stderr)
        raise
    finally:
        training.close()
    return 0


if __name__ == "__main__":
    run_script(main)
