"""The stores of files: three implementations of ``pspd.core.model.storage.Storage``.

:class:`pspd.store.files.disk.DiskStore` is a client's folder, :class:`pspd.store.files.memory.MemoryStore` the same in
memory, and :class:`pspd.store.source.source_store.SourceStore` the file or folder that a source seeds.
"""
