"""The real slides outside the repository: each is tiled and encoded, or refused in one sentence."""

from __future__ import annotations

from pathlib import Path

import h5py
import pandas as pd
import pytest

from tests.integration.conftest import Call

# slide -> (um/px asked for, words of the refusal or None)
SLIDES = {
    "aperio_CMU-1-Small-Region.svs": (0.5, None),
    "derived_from_real/CMU-1-Small-Region.ome.tif": (0.5, None),
    "derived_from_real/CMU-1-Small-Region.pyramid.tif": (0.5, None),
    "dicom_camelyon_jpeg.dcm": (0.5, "coarser than the 0.5 asked for"),
    "dicom_highdicom_sm_image.dcm": (0.5, "smaller than a tile"),
    "pathml_smalltif.tif": (0.5, "not an RGB slide: 16-bit grey"),
    "vectra_small.qptiff": (0.5, "not an RGB slide: 8-bit, 3 channels"),
    "ometiff_multi-channel-z-series.ome.tif": (0.5, "not an RGB slide"),
    "openslide_python_fixtures/unreadable.svs": (0.5, "damaged"),
    "openslide_python_fixtures/unopenable.tiff": (0.5, "Unsupported TIFF compression"),
    "openslide_python_fixtures/boxes.tiff": (0.5, "can't be true"),
}


def test_a_cohort_of_all_of_them(pathpipe: Call, shared_data: Path, tmp_path: Path) -> None:
    rows = [{"slide_id": f"R{i}", "path": str(shared_data / "slides" / name)} for i, name in enumerate(SLIDES)]
    pd.DataFrame(rows).to_csv(tmp_path / "cohort.csv", index=False)
    run = tmp_path / "run"
    done = pathpipe("extract", tmp_path / "cohort.csv", "-o", run, "--tile-px", "224", check=1)
    for number, (name, (_, refusal)) in enumerate(SLIDES.items()):
        features = run / "features" / "efficientnet-lite0" / f"R{number}.h5"
        if refusal is None:
            with h5py.File(features) as file:
                assert len(file["features"]) > 30, name
        else:
            lines = [one for one in done.stderr.splitlines() if f" R{number}: " in one]
            assert any(refusal in line for line in lines), (name, lines)
    assert "unforeseen" not in done.stderr


def test_the_same_pixels_in_three_formats_give_nearly_the_same_features(
    pathpipe: Call, shared_data: Path, tmp_path: Path
) -> None:
    names = [name for name, (_, refusal) in SLIDES.items() if refusal is None]
    rows = [{"slide_id": f"R{i}", "path": str(shared_data / "slides" / name)} for i, name in enumerate(names)]
    pd.DataFrame(rows).to_csv(tmp_path / "cohort.csv", index=False)
    run = tmp_path / "run"
    pathpipe("extract", tmp_path / "cohort.csv", "-o", run, "--mpp", "0.998", "--tile-px", "224")
    tables = []
    for number in range(3):
        with h5py.File(run / "features" / "efficientnet-lite0" / f"R{number}.h5") as file:
            rows_ = zip(map(tuple, file["coords"][:].tolist()), file["features"][:].astype(float), strict=True)
            tables.append(dict(rows_))
    shared = set.intersection(*(set(table) for table in tables))
    assert len(shared) > 8
    for place in shared:
        one, *others = (table[place] for table in tables)
        for other in others:
            cosine = (one @ other) / ((one @ one) * (other @ other)) ** 0.5
            # the pyramids were compressed once more than the slide they were made from
            assert cosine > 0.9, (place, cosine)


@pytest.mark.parametrize("mpp", ["30", "40"])
def test_dicom_at_its_own_resolution(pathpipe: Call, shared_data: Path, tmp_path: Path, mpp: str) -> None:
    slide = shared_data / "slides" / "dicom_camelyon_jpeg.dcm"
    pathpipe("tile", slide, "-o", tmp_path / "run", "--mpp", mpp, "--tile-px", "32")
    with h5py.File(tmp_path / "run" / "tiles" / "dicom_camelyon_jpeg.h5") as file:
        assert len(file["coords"]) > 20
        assert file["coords"].attrs["patch_size_level0"] == round(32 * float(mpp) / 28.9685)
