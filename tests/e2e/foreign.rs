//! A foreign AMQP client: Proton for Python, from PyPI.
