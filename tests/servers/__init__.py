"""Real servers for tests: a broker, a database, mail servers and receivers of webhooks.

Nothing here imitates. The broker is RabbitMQ, the database PostgreSQL, the mail travels over sockets. What a test
sees in a receiver is what the world would have seen.
"""
