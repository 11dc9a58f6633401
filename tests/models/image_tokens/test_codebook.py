"""A codebook chooses the nearest, follows what chose it, and brings dead entries to life, alike after a restart."""

import copy

import torch
from testing_tools import close, refused, seeded

from mmlearn.models.image_tokens.codebook import Codebook
from mmlearn.objectives.clusters import nearest


def book(**options):
    torch.manual_seed(0)
    return Codebook(8, 3, **dict(decay=0.9, restart_threshold=0.0) | options)


def test_the_nearest_entry_is_chosen():
    codebook, z = book(), torch.randn(4, 9, 3, generator=seeded())
    codes = codebook.nearest(z)
    assert torch.equal(codes, nearest(z, codebook.entries))
    assert torch.equal(codebook(codes), codebook.entries[codes])


def test_entries_become_the_means_of_what_chooses_them():
    codebook, points = book(), 3 * torch.randn(8, 3, generator=seeded(2))
    codebook.entries.copy_(points + 0.1)
    codebook.total.copy_(points + 0.1)
    z = points.repeat(1, 5, 1)
    for step in range(200):
        codebook.observe(z, codebook.nearest(z))
        codebook.after_step(torch.tensor(step))
    close(codebook.entries, points, 1e-4)
    close(codebook.count, torch.full((8,), 5.0), 1e-3)


def test_two_batches_of_a_step_are_one():
    one, z = book(), torch.randn(2, 9, 3, generator=seeded())
    two = copy.deepcopy(one)
    one.observe(z, one.nearest(z))
    for part in z[:, None]:
        two.observe(part, two.nearest(part))
    for codebook in (one, two):
        codebook.after_step(torch.tensor(0))
    close(one.entries, two.entries)
    assert one.pending is None


def test_processes_see_the_vectors_of_all(monkeypatch):
    whole, z = book(restart_threshold=0.5), 5 + torch.randn(4, 9, 3, generator=seeded())
    here, there = copy.deepcopy(whole), copy.deepcopy(whole)
    for codebook, part in ((whole, z), (here, z[:2]), (there, z[2:])):
        codebook.observe(part, codebook.nearest(part))
    others = iter([there.pending.count[None], there.pending.total[None], there.pending.vectors])
    whole.after_step(torch.tensor(1))
    monkeypatch.setattr("mmlearn.models.image_tokens.codebook.gather", lambda x: torch.cat([x, next(others)]))
    here.after_step(torch.tensor(1))
    for name in ("count", "total", "entries"):
        close(getattr(here, name), getattr(whole, name))


def test_a_dead_entry_becomes_a_vector_of_the_batch():
    for decay in (0.9, 0.0):
        codebook, z = book(decay=decay, restart_threshold=0.5), 5 + torch.randn(4, 9, 3, generator=seeded())
        with torch.no_grad():
            codebook.entries[3:] = -100.0  # which nothing chooses
            codebook.entries[:3] = z[0, :3]
        for step in range(200):
            codebook.observe(z, codebook.nearest(z))
            codebook.after_step(torch.tensor(step))
        used = codebook.nearest(z).unique()
        assert len(used) > 3
        found = codebook.entries.detach()
        assert (torch.cdist(found, z.flatten(0, 1)).amin(1) < 3).all()


def test_without_revival_dead_entries_stay_where_they_are():
    codebook, z = book(), 5 + torch.randn(4, 9, 3, generator=seeded())
    codebook.entries[3:], codebook.total[3:] = -100.0, -100.0
    for step in range(50):
        codebook.observe(z, codebook.nearest(z))
        codebook.after_step(torch.tensor(step))
    close(codebook.entries[3:], torch.full((5, 3), -100.0), 1e-3)


def test_all_entries_start_as_vectors_of_the_first_batch():
    """Also those that the first batch chooses; later only the dead become vectors, and without revival none."""
    z = 5 + torch.randn(4, 9, 3, generator=seeded())

    def after(step, **options):
        codebook = book(**options)
        codebook.observe(z, codebook.nearest(z))
        codebook.after_step(torch.tensor(step))
        return torch.cdist(codebook.entries.detach(), z.flatten(0, 1)).amin(1) < 1e-5, codebook

    for decay in (0.9, 0.0):
        found, codebook = after(0, decay=decay, restart_threshold=0.1)
        assert found.all()
        if decay:
            close(codebook.total, codebook.entries * codebook.count[:, None])
            close(codebook.count, codebook.count.mean().expand(8))
        assert not after(1, decay=decay, restart_threshold=0.1)[0].any()
        assert not after(0, decay=decay)[0].any()


def test_what_is_brought_to_life_goes_by_seed_and_step():
    z = 5 + torch.randn(4, 9, 3, generator=seeded())

    def ends(seed, step):
        codebook = book(restart_threshold=0.99, seed=seed)
        codebook.observe(z, codebook.nearest(z))
        codebook.after_step(torch.tensor(step))
        return codebook.entries

    assert torch.equal(ends(0, 1), ends(0, 1))
    assert not torch.equal(ends(0, 1), ends(0, 2))
    assert not torch.equal(ends(0, 1), ends(1, 1))
    refused("from 0 to below 1", book, decay=1.0)
