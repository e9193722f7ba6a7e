"""The local steps of many workers taken as one, by vmap: an unmodified ``training_step``, much cheaper.

``training`` is where a chunk of visits is carried out; ``fitness`` and ``trial`` say whether, and in what
chunks. Who is visited, and what may leave a worker, is for the layers around.
"""
