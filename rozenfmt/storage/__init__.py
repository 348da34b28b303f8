"""Storage: folders of objects behind one narrow protocol.

``open_storage`` opens a folder, ``resolve`` splits the address of one object into its folder
and its name.  Importing this package is cheap: back-ends, fsspec and asyncio are imported when
the first folder that needs them is opened.  This room knows nothing of archives and of keys.
"""

from __future__ import annotations

from rozenfmt.storage.base import ObjectInfo, Storage, Upload
from rozenfmt.storage.location import open_storage, resolve
from rozenfmt.storage.retry import RetryPolicy

__all__ = ["ObjectInfo", "RetryPolicy", "Storage", "Upload", "open_storage", "resolve"]
