"""Save, load and describe model directories, build their networks, and run them on pixels.

Only the modules that build or freeze a network load Keras when they are imported; the others load it inside functions.
"""
