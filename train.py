"""Trains the voiceprint network on the lists that create_data.py wrote.

    python train.py                                    # all GPUs, or the CPU
    python train.py --gpu 0,1 --batch_size 128
    python train.py --resume models/resnet34-51.keras  # goes on where a training stopped
    python train.py --train_list_path dataset/shards   # in sequence, of create_data.py --shards
    python train.py --hosts HOST0:12355 --num_hosts 2 --host_id 0   # and 1 on the other (JAX)

Labels of the lists are names or numbers; they are numbered without gaps and kept in the model.
An epoch ends with a checkpoint models/resnet34-EPOCH.keras, the accuracy on the test list and the
equal error rate (EER) of its speakers. Ctrl-C at any moment: go on with --resume.
"""

import argparse
import sys

from utils.arguments import make_parser, print_arguments
from utils.corpus.lists import read_training_lists, speakers_of
from utils.corpus.shards import is_sharded, read_training_shards
from utils.errors import run_script
from utils.messages import translate
from utils.training import options as training_options
from utils.training.hosts import find_hosts, is_supervised, noticing_losses, supervise


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
    hosts = find_hosts(args.hosts, args.num_hosts, args.host_id)
    if hosts and not is_supervised():
        given = sys.argv[1:] if argv is None else argv
        return supervise(__file__, [*given, *hosts.options], args.model_dir)
    print_arguments(args, training_options.BASELINE_OPTIONS, parser)
    if is_sharded(args.train_list_path):
        train, test, shards = read_training_shards(args.train_list_path, args.test_list_path)
    else:
        train, test = read_training_lists(args.train_list_path, args.test_list_path)
        shards = None
    settings = training_options.to_settings(args)

    from utils.training.devices import select_devices
    from utils.training.progress import describe_checkpoint
    from utils.training.run import TrainingRun

    strategy = select_devices(args.gpu, args.precision, hosts)
    training = TrainingRun(
        train, test, settings, args.num_classes, args.resume, args.init, strategy,
        speakers_of(train, shards.place if shards else args.train_list_path),
        hosts.share if hosts else None, shards,
    )  # fmt: skip
    try:
        if args.resume:
            print(translate(f"==> resuming from {describe_checkpoint(args.resume)}"))
        with noticing_losses(hosts):
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
