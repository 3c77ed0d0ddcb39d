"""Decodes every file of a FlyingChairs2 set strictly and names all bad samples. Built on `data.fc2_index`.

python -m edgeflownas.verify_data --base_path data/FlyingChairs2
"""

from typing import List, Optional

from edgeflownas import config as configuration
from edgeflownas.arguments import Parser
from edgeflownas.command_line import config_parser, overrides
from edgeflownas.data.fc2_index import build_index, verify_all
from edgeflownas.engine.progress import Checking
from edgeflownas.errors import run_cli


def _parser() -> Parser:
    return config_parser(
        "python -m edgeflownas.verify_data",
        "Checks a data set as training reads it: list files or folders, then decodes every PNG and .flo completely. "
        "Exit code 0: all is right; 2: a file is missing or damaged, named in one line.",
        used=lambda name: name.startswith("data.") and name != "data.flow_clip" or name == "train.seed",
    )


def main(argv: Optional[List[str]] = None) -> int:
    """Checks the data set. Returns 0; DataError for a missing or damaged file."""
    args = _parser().parse_args(argv)
    config, _ = configuration.load(args.config, overrides(args))
    index = build_index(config.data, config.train.seed, progress=Checking("checking files"))
    verify_all(index.train + index.val, progress=Checking("decoding every file"))
    print(
        f"{config.data.base_path}: {len(index.train)} training and {len(index.val)} validation samples, every file "
        f"decoded and right; fingerprint {index.fingerprint}"
    )
    return 0


if __name__ == "__main__":
    run_cli(main)
