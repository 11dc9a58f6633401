"""Several processes with a part of the batch each learn exactly what one learns from the whole."""

import data_parallel
import pytest
import torch

from mmlearn.objectives import gather, own_rows
from mmlearn.processes import in_processes


def test_one_process_keeps_its_rows():
    x = torch.randn(3, 2)
    assert gather(x) is x
    assert torch.equal(x[own_rows(x)], x)


def test_processes_equal_one():
    """Rows in order of rank, gradients summed over ranks; loss and gradients of each system to 1e-9 in float64.

    So it is where towers read in chunks and blocks are computed again.
    """
    world, cases = 3, list(data_parallel.CASES)
    expected = {case: data_parallel.step(*data_parallel.build(case)) for case in cases}
    everyone = sum(range(1, world + 1))  # process r weighs the rows (r + 1) · (1, 2, 3, …)
    for rank, result in enumerate(in_processes(data_parallel.work, world, cases)):
        assert result["rows"].tolist() == [[10.0 * r + i, 1 + i] for r in range(world) for i in range(2)]
        assert result["gradient"].tolist() == [[everyone * (2 * rank + i)] * 2 for i in (1, 2)]
        assert result["flags"].tolist() == [flag for r in range(world) for flag in (r == 1, True)]
        assert result["ids"].tolist() == [2**40 + r for r in range(world)]
        assert result["strided"].tolist() == [[i + r, i + 3 + r] for r in range(world) for i in range(3)]
        for case in (*cases, *(f"{case}, less memory" for case in data_parallel.LESS_MEMORY)):
            assert list(result[case]) == list(expected[case.removesuffix(", less memory")])
            for name, value in expected[case.removesuffix(", less memory")].items():
                where = f"{case}, process {rank}, {name}: "
                torch.testing.assert_close(
                    result[case][name], value, atol=1e-9, rtol=1e-9, msg=lambda text, where=where: where + text
                )


@pytest.mark.parametrize("case", ["clip", "siglip", "filip"])
def test_the_whole_batch_is_not_the_mean_of_its_parts(case):
    """The control: without negatives from the other process the numbers differ, so the test above proves something."""
    model, batch = data_parallel.build(case)
    parts = [model({name: rows.chunk(2)[rank] for name, rows in batch.items()}) for rank in range(2)]
    whole, *parts = (sum(losses.values()) for losses in (model(batch), *parts))
    assert abs(whole - sum(parts) / 2).item() > 1e-2
