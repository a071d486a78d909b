"""Triton's asyncio client, which accepts compressed answers without having been asked."""

import asyncio

import numpy as np
import tritonclient.http.aio as triton

from tests.conformance.triton_http.conftest import Served


async def test_many_calls_at_once(served: Served) -> None:
    async with triton.InferenceServerClient(served.address) as client:
        assert await client.is_server_ready()
        assert (await client.get_model_config("adder"))["name"] == "adder"

        async def one(number: int) -> None:
            sent = np.full((500, 4), number, np.int32)
            inputs = [triton.InferInput(name, [500, 4], "INT32") for name in ("a", "b")]
            for made in inputs:
                made.set_data_from_numpy(sent)
            answer = await client.infer("adder", inputs)
            assert np.array_equal(answer.as_numpy("sum"), 2 * sent)

        await asyncio.gather(*(one(number) for number in range(30)))
