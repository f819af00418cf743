"""Public data sets as they lie on disk: one file each. `SOURCES` lists them; `source.py` says what one is."""

from __future__ import annotations

from datasets.sources.ade20k import ADE20K
from datasets.sources.celeba import CelebA
from datasets.sources.celeba_hq import CelebAHQ
from datasets.sources.cityscapes import Cityscapes
from datasets.sources.dtd import DTD
from datasets.sources.folder import Folder
from datasets.sources.imagenet import ImageNet
from datasets.sources.outdoor_scenes import OutdoorScenes
from datasets.sources.paris_streetview import ParisStreetView
from datasets.sources.photos import Photos
from datasets.sources.places2 import Places2
from datasets.sources.source import Card, Source, SourceConfig, SourceError, SourceImage, source_key
from files.nearest import suggest

__all__ = ["SOURCES", "Card", "Source", "SourceConfig", "SourceImage", "named", "open_source", "source_key"]

SOURCES: dict[str, type[Source]] = {
    source.card.name: source
    for source in (
        Photos,
        Folder,
        Places2,
        CelebA,
        CelebAHQ,
        ParisStreetView,
        DTD,
        ImageNet,
        OutdoorScenes,
        Cityscapes,
        ADE20K,
    )
}


def named(name: str) -> type[Source]:
    """The data set of this name. Raises ValueError, with the nearest name, if there is none."""
    if name not in SOURCES:
        raise SourceError(f"{name!r} is not a data set; {suggest(name, SOURCES)}")
    return SOURCES[name]


def open_source(config: SourceConfig) -> Source:
    """The data set that `config.name` names. Raises ValueError if there is none, or if an option is not its own."""
    return named(config.name)(config)
