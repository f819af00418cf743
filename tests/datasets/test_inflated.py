import contextlib
import os

from datasets.inflated import inflate_sources
from datasets.sources import open_source, source_config
from tests.pipeline.pictures import write_gzip_tar, write_pictures


class Bar(contextlib.nullcontext):
    """A progress bar that shows nothing."""

    def __init__(self, title, total, unit):
        super().__init__(self)

    def at(self, done, note="", *, skipped=0):
        pass


def test_inflated_tars_are_reused_after_an_error_and_removed_at_the_end(tmp_path):
    archive = write_gzip_tar(write_pictures(tmp_path / "pictures"), tmp_path / "pictures.tgz")
    dataset = source_config(name="folder", root=str(archive))
    folder = tmp_path / "inflated"
    kept = []
    for _ in range(2):
        with contextlib.suppress(ZeroDivisionError), inflate_sources(folder, open_source(dataset).images(), Bar):
            kept.append([(path.name, path.stat().st_ino) for path in folder.iterdir()])
            raise ZeroDivisionError
    assert len(kept[0]) == 1
    assert kept[1] == kept[0]
    os.utime(archive, ns=(1, 1))  # now the archive counts as changed
    with inflate_sources(folder, open_source(dataset).images(), Bar) as images:
        (tar,) = folder.iterdir()
        assert tar.name != kept[0][0][0]
        assert [image.locator.content() for image in images] == [
            image.locator.content() for image in open_source(dataset).images()
        ]
    assert not folder.exists()
