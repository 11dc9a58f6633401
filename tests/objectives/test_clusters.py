"""k-means: finds what is there, ends where nothing can move, and leaves no cluster empty."""

import pytest
import torch
from testing_tools import close, seeded

from mmlearn.objectives.clusters import cluster, nearest


def groups(count=5, rows=40, width=3, seed=0):
    """Rows around a few far points, and which point each is around."""
    points = 20 * torch.randn(count, width, generator=seeded(seed))
    number = torch.arange(count).repeat(rows)
    return points[number] + torch.randn(len(number), width, generator=seeded(seed + 1)), number


def cost(features, centroids):
    return (features - centroids[nearest(features, centroids)]).square().sum()


@pytest.mark.parametrize("seed", range(5))
def test_groups_are_found(seed):
    features, number = groups(seed=seed)
    centroids = cluster(features, 5, generator=seeded(seed))
    found = nearest(features, centroids)
    for group in range(5):
        assert len(found[number == group].unique()) == 1
    assert len(found.unique()) == 5
    for k in range(5):
        close(centroids[k], features[found == k].mean(0), 1e-4)


def test_nearest_is_nearest_also_far_from_the_middle():
    features, centroids = torch.randn(4, 30, 6), torch.randn(7, 6)
    expected = torch.cdist(features, centroids.expand(4, 7, 6)).argmin(-1)
    assert torch.equal(nearest(features, centroids), expected)
    assert torch.equal(nearest(features + 1000, centroids + 1000), expected)
    assert nearest(features[0, 0], centroids).shape == ()


def test_nothing_can_be_improved_at_the_end():
    features = torch.randn(300, 4, generator=seeded())
    centroids = cluster(features, 12, generator=seeded(), steps=200)
    found = nearest(features, centroids)
    means = torch.stack([features[found == k].mean(0) for k in range(12)])
    close(means, centroids)
    costs = [cost(features, cluster(features, 12, generator=seeded(), steps=steps)) for steps in (0, 1, 3, 200)]
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] < 0.9 * costs[0]


def test_more_clusters_cost_less_and_as_many_as_rows_cost_nothing():
    features = torch.randn(40, 3, generator=seeded())
    costs = [cost(features, cluster(features, k, generator=seeded())).item() for k in (1, 4, 16, 40)]
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] == pytest.approx(0, abs=1e-4)
    close(cluster(features, 1, generator=seeded())[0], features.mean(0))


def test_first_centroids_lie_far_apart():
    """One row far from a thousand others is almost always chosen; evenly it would be once in 500 times."""
    features = torch.cat([torch.randn(1000, 2, generator=seeded()), torch.full((1, 2), 1e3)])
    chosen = [cluster(features, 2, generator=seeded(seed), steps=0) for seed in range(20)]
    assert sum((rows == 1e3).all(1).any() for rows in chosen) >= 19


def test_a_cluster_without_rows_goes_to_a_row():
    """Of two clusters at one place the first has all rows; the other is not left behind at 0."""
    features = torch.tensor([[5.0], [5.0], [5.0], [7.0], [7.0]])
    for seed in range(10):
        centroids = cluster(features, 4, generator=seeded(seed))
        assert set(centroids.flatten().tolist()) == {5.0, 7.0}
        assert cluster(torch.cat([features, features + 4]), 4, generator=seeded(seed)).unique().tolist() == [
            5,
            7,
            9,
            11,
        ]


def test_clusters_follow_the_generator_alone():
    features = torch.randn(200, 4, generator=seeded())
    first = cluster(features, 9, generator=seeded(1))
    assert torch.equal(first, cluster(features, 9, generator=seeded(1)))
    assert not torch.equal(first, cluster(features, 9, generator=seeded(2)))
    for k in (0, 201):
        with pytest.raises(ValueError, match=f"There are 200 rows for {k} clusters: ask for at least 1 and at most"):
            cluster(features, k, generator=seeded())
