"""The shop of scripts/demo: a private database server, and what a small shop writes to it.

The writer chooses every key and value itself, so it knows each change that a transaction makes; the database tells it
the transaction's name. Both together name one event.
"""

import os
import pathlib
import random
import subprocess
import time

NOBODY = 65534  # PostgreSQL refuses to run as root
PRODUCTS = ["lamp", "chair", "table", "shelf", "rug"]
FULL = 100  # of each product, when its shelf is full
PASSWORD = "demo"

TABLES = [
    "CREATE TABLE products (id bigint PRIMARY KEY, name varchar(40) NOT NULL, stock integer NOT NULL)",
    "CREATE TABLE orders (id bigint PRIMARY KEY, status varchar(20) NOT NULL, total numeric(10, 2))",
    "CREATE TABLE order_lines (order_id bigint, line integer, product_id bigint, quantity integer, PRIMARY KEY (order_id, line))",
]


class Shop:
    """What is in the shop, and what may happen next. Every happening is (statements, changes); a change is (op, table, key)."""

    def __init__(self):
        self.stock = {}
        self.orders = {}  # id -> (status, number of lines)
        self.next = 1
        self.dice = random.Random()

    def open(self):
        """The first rows."""
        statements, changes = [], []
        for id, name in enumerate(PRODUCTS, 1):
            self.stock[id] = FULL
            statements.append(f"INSERT INTO products VALUES ({id}, '{name}', {FULL})")
            changes.append(("created", "products", str(id)))
        return statements, changes

    def ordered(self):
        id, lines, product = self.next, self.dice.randint(1, 3), self.dice.choice(list(self.stock))
        self.next += 1
        self.orders[id] = ("new", lines)
        self.stock[product] -= 1
        rows = ", ".join(f"({id}, {line}, {self.dice.choice(list(self.stock))}, {self.dice.randint(1, 4)})" for line in range(1, lines + 1))
        statements = [
            f"INSERT INTO orders VALUES ({id}, 'new', {self.dice.randint(1000, 50000) / 100:.2f})",
            f"INSERT INTO order_lines VALUES {rows}",
            f"UPDATE products SET stock = {self.stock[product]} WHERE id = {product}",
        ]
        changes = [("created", "orders", str(id))]
        changes += [("created", "order_lines", f"{id},{line}") for line in range(1, lines + 1)]
        return statements, changes + [("updated", "products", str(product))]

    def moved(self, before, after):
        """The oldest order goes from one state to the next."""
        ids = [id for id, (status, _) in self.orders.items() if status == before]
        if not ids:
            return [], []
        id = min(ids)
        self.orders[id] = (after, self.orders[id][1])
        return [f"UPDATE orders SET status = '{after}' WHERE id = {id}"], [("updated", "orders", str(id))]

    def cancelled(self):
        """The newest order is taken back."""
        ids = [id for id, (status, _) in self.orders.items() if status == "new"]
        if not ids:
            return [], []
        id = max(ids)
        _, lines = self.orders.pop(id)
        changes = [("deleted", "order_lines", f"{id},{line}") for line in range(1, lines + 1)]
        return [f"DELETE FROM order_lines WHERE order_id = {id}", f"DELETE FROM orders WHERE id = {id}"], changes + [("deleted", "orders", str(id))]

    def restocked(self):
        low = [id for id, stock in self.stock.items() if stock < FULL - 4]
        self.stock.update(dict.fromkeys(low, FULL))
        return [f"UPDATE products SET stock = {FULL} WHERE id = {id}" for id in low], [("updated", "products", str(id)) for id in low]

    def next_happening(self):
        happening = self.dice.choices(["ordered", "paid", "shipped", "cancelled", "restocked"], [4, 3, 2, 1, 1])[0]
        if happening == "paid":
            return self.moved("new", "paid")
        if happening == "shipped":
            return self.moved("paid", "shipped")
        return getattr(self, happening)()


class Database:
    """A private server on a free port, and one session of its own client program."""

    log = "database.log"

    def __init__(self, servers, directory, port, start):
        self.servers, self.dir, self.port = servers, directory, port
        self.start_process = start
        self.home = directory / "database"
        self.home.mkdir()
        self.session = None

    def wait(self):
        until = time.monotonic() + 60
        while subprocess.run(self.words(self.client() + self.batch + self.once("SELECT 1")), capture_output=True, start_new_session=True).returncode != 0:
            if time.monotonic() > until:
                raise OSError(f"{self.title} does not start")
            time.sleep(0.1)

    def execute(self, statements):
        made = subprocess.run(self.words(self.client() + self.batch + self.once("; ".join(statements))), capture_output=True, text=True, start_new_session=True)
        if made.returncode != 0:
            raise OSError(f"the shop cannot be made: {made.stderr.strip()}")

    def transaction(self, statements):
        """Commits them; gives the transaction's name and the moment at which its commit was asked for."""
        if self.session is None:
            self.session = self.start_process(
                self.client() + self.batch, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=open(self.dir / "writer.log", "ab"), text=True
            )
        self.tell("BEGIN", *statements, self.name_before_commit)
        early = self.answer()
        asked = time.time()
        self.tell("COMMIT", self.name_after_commit)
        return self.name(early, self.answer()), asked

    def tell(self, *statements):
        self.session.stdin.write("".join(f"{statement};\n" for statement in statements))
        self.session.stdin.flush()

    def answer(self):
        line = self.session.stdout.readline()
        if not line:
            raise OSError("the writer's session ended")
        return line.strip()

    @staticmethod
    def words(command):
        return [str(word) for word in command]


class Postgres(Database):
    title, connector, tables = "PostgreSQL 18", "postgres", "public.*"
    # The log then holds the whole old row, so that events tell what changed.
    more = [f"ALTER TABLE {table} REPLICA IDENTITY FULL" for table in ("products", "orders", "order_lines")]
    batch = ["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "-v", "ON_ERROR_STOP=1"]
    name_before_commit, name_after_commit = "SELECT pg_current_xact_id()::xid", "SELECT 'committed'"

    def start(self):
        programs = self.servers / "postgres-18" / "bin"
        who = {"cwd": self.home}
        if os.geteuid() == 0:
            os.chown(self.home, NOBODY, NOBODY)
            who |= {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        initdb = [programs / "initdb", "--no-sync", "--auth=trust", "--username=cdc", "--encoding=UTF8", "--locale=C", "-D", "data"]
        made = subprocess.run(self.words(initdb), capture_output=True, text=True, start_new_session=True, **who)
        if made.returncode != 0:
            raise OSError(f"initdb: {made.stderr}")
        self.start_process(
            [programs / "postgres", "-D", "data", "-h", "127.0.0.1", "-p", self.port, "-k", self.home]
            + ["-c", "wal_level=logical", "-c", "max_slot_wal_keep_size=1GB"],
            log=self.log,
            **who,
        )
        self.database = "postgres"
        self.wait()
        self.execute(["CREATE DATABASE shop"])
        self.database = "shop"
        self.execute(TABLES + self.more)

    def url(self):
        return f"postgres://cdc:{PASSWORD}@127.0.0.1:{self.port}/shop"

    def client(self):
        address = ["-h", "127.0.0.1", "-p", self.port, "-U", "cdc", "-d", self.database]
        return [self.servers / "postgres-18" / "bin" / "psql"] + address

    @staticmethod
    def once(sql):
        return ["-c", sql]

    @staticmethod
    def name(early, _late):
        return early


class MariaDb(Database):
    title, connector, tables = "MariaDB 11.8", "mysql", "shop.*"
    folder, server, program = "mariadb-11.8", "mariadbd", "mariadb"
    batch = ["--batch", "--skip-column-names", "--unbuffered"]
    name_before_commit, name_after_commit = "SELECT 'ready'", "SELECT @@last_gtid"
    settings = ["--log-slave-updates=ON", "--innodb-log-file-size=16M"]
    grants = "REPLICATION SLAVE, BINLOG MONITOR, SLAVE MONITOR"

    def initialise(self):
        share = self.servers / self.folder / "fs/usr/share"
        sql = "CREATE DATABASE mysql;\nUSE mysql;\n"
        for part in ("system_tables", "performance_tables", "system_tables_data"):
            sql += next(share.glob(f"*/*_{part}.sql")).read_text()
        (self.home / "data").mkdir()
        return ["--bootstrap", "--skip-networking"], sql

    def start(self):
        program = self.servers / self.folder / "bin" / self.server
        if not program.exists():
            raise OSError(f"{self.title} is not installed; scripts/servers says why")
        server = [program, f"--datadir={self.home}/data", "--innodb-buffer-pool-size=64M"]
        if os.geteuid() == 0:
            server.append("--user=root")
        (self.home / "tmp").mkdir()
        options, sql = self.initialise()
        made = subprocess.run(self.words(server + options), input=sql, capture_output=True, text=True, start_new_session=True, cwd="/")
        if made.returncode != 0:
            raise OSError(f"{self.title} cannot be initialised: {made.stderr}")
        accounts = self.home / "accounts.sql"
        accounts.write_text(
            "SET SESSION sql_log_bin = 0;\n"
            "CREATE DATABASE shop CHARACTER SET utf8mb4;\n"
            f"CREATE USER 'shop'@'%' IDENTIFIED BY '{PASSWORD}';\n"
            "GRANT ALL ON *.* TO 'shop'@'%';\n"
            f"CREATE USER 'cdc'@'%' IDENTIFIED BY '{PASSWORD}';\n"
            f"GRANT {self.grants} ON *.* TO 'cdc'@'%';\n"
            "GRANT SELECT ON shop.* TO 'cdc'@'%';\n"
        )
        self.start_process(
            server
            + [f"--port={self.port}", "--bind-address=127.0.0.1", f"--socket={self.home}/socket", f"--pid-file={self.home}/pid"]
            + [f"--tmpdir={self.home}/tmp", f"--init-file={accounts}", "--server-id=1", "--skip-name-resolve", "--log-bin=binlog"]
            + ["--binlog-format=ROW", "--binlog-row-image=FULL", "--binlog-row-metadata=FULL"]
            + self.settings,
            log=self.log,
            cwd="/",
        )
        self.wait()
        self.execute(TABLES)

    def url(self):
        return f"mysql://cdc:{PASSWORD}@127.0.0.1:{self.port}/shop"

    def client(self):
        login = [f"--socket={self.home}/socket", "--user=shop", f"--password={PASSWORD}"]
        return [self.servers / self.folder / "bin" / self.program] + login + ["shop"]

    @staticmethod
    def once(sql):
        return ["-e", sql]

    @staticmethod
    def name(_early, late):
        return late


class MySql(MariaDb):
    title = "MySQL 9.7"
    folder, server, program = "mysql-9.7", "mysqld", "mysql"
    # The shop is the only one that writes.
    name_after_commit = "SELECT @@GLOBAL.gtid_executed"
    settings = ["--mysqlx=OFF", "--gtid-mode=ON", "--enforce-gtid-consistency=ON", "--innodb-redo-log-capacity=16M"]
    grants = "REPLICATION SLAVE, REPLICATION CLIENT"

    def initialise(self):
        return ["--initialize-insecure"], ""

    @staticmethod
    def name(_early, late):
        server, _, numbers = late.partition(":")
        return f"{server}:{numbers.rpartition('-')[2]}"


DATABASES = {"postgres": Postgres, "mariadb": MariaDb, "mysql": MySql}
