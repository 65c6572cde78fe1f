import psutil
import torch

from batch_api.engine.cache import Cache, LayerShape


def test_the_cache_takes_memory_as_it_is_written() -> None:
    before = psutil.Process().memory_info().rss
    cpu = torch.device("cpu")
    shapes = [LayerShape(heads=2, key_size=64, value_size=64)]

    cache = Cache(shapes, slots=32, positions=8192, dtype=torch.float32, device=cpu)
    key = torch.ones(3, 2, 64)
    cache.write(0, (torch.tensor([0, 1, 31]), torch.tensor([0, 7, 8191])), key, 2 * key)

    assert cache.memory_bytes == 2 * 32 * 2 * 8192 * 64 * 4
    assert psutil.Process().memory_info().rss - before < cache.memory_bytes / 4
    keys, values = cache.read(0, slice(1, 2), 9)
    assert (int(keys.sum()), int(values.sum())) == (128, 256)
