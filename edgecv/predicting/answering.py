"""Pictures answered one after the other, from any number of sources, and kept where asked.

What was made of a film is kept where its end is damaged, and of a camera where it is stopped; of a
film that somebody stops, or that ends by any other error, nothing is.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecv.errors import DataError

if TYPE_CHECKING:
    from edgecv.predicting.answers import Answer, Predictor
    from edgecv.predicting.saving import Kept
    from edgecv.predicting.sources import Picture, Source
    from edgecv.predicting.video import Film


@dataclass(frozen=True)
class Answered:
    """One picture with its answer, or the error that stands in its place.

    name: of the picture or film; picture: None where a film could not be read to its end
    path: where the answer is kept, or None
    """

    name: str
    picture: Picture | None
    answer: Answer | None = None
    error: DataError | None = None
    path: Path | None = None


def answered(
    predictor: Predictor, sources: Sequence[Source], kept: Kept | None
) -> Generator[Answered, None, None]:
    """Every picture of the sources, in order."""
    for source in sources:
        if source.film:
            yield from _film(predictor, source, kept)
        else:
            yield from _files(predictor, source, kept)


def _files(predictor: Predictor, source: Source, kept: Kept | None) -> Iterator[Answered]:
    # every name before the first picture: what cannot be kept is said before anything is
    named = [(p, kept.path(p) if kept else None) for p in source.pictures()]
    for picture, path in named:
        try:
            pixels = picture.load()
            answer = predictor(pixels)
        except DataError as error:
            yield Answered(picture.name, picture, error=error)
            continue
        if kept and path and predictor.arrays:
            kept.arrays(path, answer.read)
        elif kept and path:
            kept.picture(path, predictor.drawn(pixels, answer))
        yield Answered(picture.name, picture, answer, path=path)


def _film(predictor: Predictor, source: Source, kept: Kept | None) -> Iterator[Answered]:
    film: Film | None = None
    try:
        for picture in _frames(source):
            if isinstance(picture, Answered):
                yield picture
                continue
            pixels = picture.load()
            answer = predictor(pixels)
            path = None
            if kept and predictor.arrays:
                path = kept.path(picture)
                kept.arrays(path, answer.read)
            elif kept:
                film = film or kept.film(kept.path(picture))
                film.add(predictor.drawn(pixels, answer), picture.time_s or 0.0)
                path = film.path
            yield Answered(picture.name, picture, answer, path=path)
    except (KeyboardInterrupt, GeneratorExit):
        if film and source.endless:
            film.keep()
        elif film:
            film.discard()
        raise
    except BaseException:
        if film:
            film.discard()
        raise
    if film:
        film.keep()


def _frames(source: Source) -> Iterator[Any]:
    """A film's frames up to its end or its damage, which is an Answered with the error."""
    try:
        yield from source.pictures()
    except DataError as error:
        yield Answered(source.name, None, error=error)
