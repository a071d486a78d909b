"""Makes gooseBit's tables; runs in gooseBit's environment."""

import asyncio

from goosebit.db.config import TORTOISE_CONF  # type: ignore[import-not-found]
from tortoise import Tortoise  # type: ignore[import-not-found]


async def main() -> None:
    """Make them in the database that the environment names."""
    await Tortoise.init(config=TORTOISE_CONF)
    await Tortoise.generate_schemas()
    await Tortoise.close_connections()


asyncio.run(main())
