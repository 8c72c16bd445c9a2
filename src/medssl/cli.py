"""The command: finds the verb, parses its options, and only then imports what does the work."""

import importlib
import sys
from collections.abc import Sequence

# verb: (module of its options, class, module of its stage, one line)
VERBS = {
    "index": (
        "data",
        "Index",
        "index",
        "find every usable scan in a folder; list what is wrong with the rest",
    ),
    "prepare": ("data", "Prepare", "prepare", "orient, resample, normalise and store scans for training"),
    "preview": ("data", "Preview", "preview", "draw the views a method would train on"),
    "preflight": ("train", "Preflight", "preflight", "what a pre-training would cost here, and what would help"),
    "pretrain": (
        "train",
        "Pretrain",
        "pretrain",
        "pre-train an encoder on the prepared scans, without labels",
    ),
    "finetune": ("train", "Finetune", "finetune", "train and test a classifier or segmenter with few labels"),
    "predict": ("train", "Predict", "predict", "show scans to a fine-tuned classifier or segmenter"),
    "evaluate": ("evaluate", "Evaluate", "evaluate", "retrieval and zero-shot tests of a run of several modalities"),
    "study": ("study", "Study", "study", "scratch against pre-trained, many seeds: does it help?"),
    "report": ("study", "Report", "report", "write the report of a run or a study anew"),
    "embed": ("train", "Embed", "embed", "write the features of every scan"),
    "phantom": ("data", "Phantom", "phantom", "write a folder of generated scans"),
    "demo": ("study", "Demo", "demo", "the whole way on generated scans, in minutes"),
}

HELP = """usage: medssl VERB [options]      medssl VERB --help

Self-supervised pre-training for medical images, on your own unlabelled scans,
with a verdict whether it helped. Research software, not a medical device.

{verbs}

The main job:
  medssl index SCANS --out DATA
  medssl prepare DATA
  medssl study --data DATA --task classify --target COLUMN --arms scratch pcrl --out STUDY
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0 done, 2 it cannot go on and says why, 130 interrupted, 141
    its reader went away."""
    try:
        try:
            return _answer(list(sys.argv[1:] if arguments is None else arguments))
        finally:
            if sys.stdout:
                sys.stdout.flush()  # a short text lies in its buffer until then
    except BrokenPipeError:  # the reader of our output, `head` say, has what it wanted
        sys.stdout = None  # type: ignore[assignment]
        return 141  # as of any program that SIGPIPE ends: a training that stopped half way is not done


def _answer(args: list[str]) -> int:
    if not args or args[0] in ("-h", "--help", "help"):
        print(HELP.format(verbs="\n".join(f"  {verb:<10}{line[3]}" for verb, line in VERBS.items())))
        return 0
    if args[0] in ("--version", "version"):
        from importlib.metadata import version

        print(f"medssl {version('medssl')}")
        return 0
    if args[0] not in VERBS:
        import difflib

        near = difflib.get_close_matches(args[0], VERBS, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"choose one of {', '.join(VERBS)}"
        print(f"medssl: no verb '{args[0]}': {hint}", file=sys.stderr)
        return 2
    return _run(args[0], args[1:])


def _run(verb: str, args: list[str]) -> int:
    from medssl.errors import UserError

    try:
        options, settings = _parse(verb, args)
        stage = importlib.import_module(f"medssl.stages.{VERBS[verb][2]}")
        stage.run(options, settings) if settings else stage.run(options)
    except UserError as error:
        print(f"medssl {verb}: {error}", file=sys.stderr)
        return 2
    except (OSError, MemoryError, RuntimeError) as error:
        sentence = _machine_fault(error)
        if sentence is None:
            raise
        print(f"medssl {verb}: {sentence}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"medssl {verb}: interrupted; run the same command again to go on", file=sys.stderr)
        return 130
    return 0


def _parse(verb: str, args: list[str]) -> tuple[object, dict[str, object]]:
    """Options of the verb and, where it trains a method, the method's own settings that a person gave."""
    from medssl.arguments import parse_method, parse_options

    module, kind = VERBS[verb][:2]
    options = getattr(importlib.import_module(f"medssl.stages.options.{module}"), kind)
    asks_help = verb == "preflight" and any(a in ("-h", "--help") for a in args)
    if verb not in ("preflight", "pretrain") or asks_help:
        return parse_options(options, args, f"medssl {verb}"), {}
    return parse_method(options, args, f"medssl {verb}")


def _machine_fault(error: Exception) -> str | None:
    """One sentence for a disk that is full or read-only, memory that runs out; None for what is a fault of ours."""
    import errno

    if not isinstance(error, OSError):
        from medssl.engine.memory import exhausted

        return "out of memory: lower --batch, --patch or --width" if exhausted(error) else None

    fixes = {
        errno.ENOSPC: ("the disk is full", "free some space, then run the same command again"),
        errno.EDQUOT: ("the disk quota is used up", "free some space, then run the same command again"),
        errno.EROFS: ("the disk is read-only", "choose a folder you can write to"),
        errno.EACCES: ("permission denied", "choose a folder you may read and write"),
        errno.EPERM: ("permission denied", "choose a folder you may read and write"),
        errno.EEXIST: ("a file is where a folder is to be", "choose another folder"),
        errno.ENOTDIR: ("a file is where a folder is to be", "choose another folder"),
        errno.EISDIR: ("a folder is where a file is to be", "choose another name"),
        errno.ENAMETOOLONG: ("the path is too long", "choose a shorter one"),
        errno.ELOOP: ("a link that leads to itself", "mend the link"),
    }
    if error.errno not in fixes:
        return None
    what, fix = fixes[error.errno]
    place = f" ({error.filename})" if error.filename else ""
    return f"{what}{place}: {fix}"
