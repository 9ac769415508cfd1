from dataclasses import replace
from pathlib import Path

import numpy as np

from tests.training.conftest import blobs
from training.head.features import Features, load_features
from training.head.fit import fit
from training.head.half_precision import WORTH_IT, fit_in_half

MANY = (WORTH_IT // 2 + 100, WORTH_IT // 2)


def never(_features: Features) -> None:
    raise AssertionError("the exact embeddings are not needed")


def copied(features: Features, offset: float = 0.0) -> Features:
    return replace(features, embedding=(features.embedding + offset).astype(np.float32))


def test_many_embeddings_are_kept_in_half_precision_and_give_the_very_head_once_more(tmp_path: Path) -> None:
    exact = blobs(MANY, 32)
    path = tmp_path / "features.npz"

    kept = copied(exact)
    fitted = fit_in_half(kept, fit, never)
    kept.save(path)

    with np.load(path) as file:
        assert file["embedding"].dtype == np.float16
    again = load_features(path)
    assert again.embedding.dtype == np.float32
    assert fit(again).head.digest() == fitted.head.digest()
    np.testing.assert_allclose(again.embedding, exact.embedding, rtol=2**-11, atol=1e-6)


def test_few_embeddings_stay_exact(tmp_path: Path) -> None:
    exact = blobs((30, 30), 6)
    path = tmp_path / "features.npz"

    kept = copied(exact)
    fit_in_half(kept, fit, never)
    kept.save(path)

    assert kept.embedding.tobytes() == exact.embedding.tobytes() == load_features(path).embedding.tobytes()


def test_a_head_that_tells_rounded_embeddings_from_exact_ones_is_fitted_on_the_exact_ones() -> None:
    exact = copied(blobs(MANY, 32), offset=1000)  # float16 has steps of 0.5 there

    def restore(features: Features) -> None:
        features.embedding[:] = exact.embedding

    kept = copied(exact)
    fitted = fit_in_half(kept, fit, restore)

    assert kept.embedding.tobytes() == exact.embedding.tobytes()
    assert fitted.head.digest() == fit(exact).head.digest()


def test_embeddings_beyond_the_range_of_float16_stay_exact(tmp_path: Path) -> None:
    exact = blobs(MANY, 32)
    exact.embedding[5] *= 1e5
    path = tmp_path / "features.npz"

    kept = copied(exact)
    fit_in_half(kept, fit, never)
    kept.save(path)

    assert load_features(path).embedding.tobytes() == exact.embedding.tobytes()
