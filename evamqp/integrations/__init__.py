"""evamqp for other libraries: each module needs the package that it is named after.

Nothing lives here.
"""
