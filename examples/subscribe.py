#!/usr/bin/env python3
"""Subscribes to the events of one source: python3 examples/subscribe.py 'events.shop.orders.>'

Needs nats-py (pip install nats-py). Two ways to read, and how each goes on where it stopped:

* without a name, an ordered consumer reads from the beginning, keeps no state in the broker, and goes on after the stream
  sequence that it is given: --after 1234. Store that number with what you made of the event, in one transaction, and
  every event has its effect once.
* --durable NAME makes a durable consumer: the broker remembers what was acknowledged. An event that was handled but not
  acknowledged (a crash in between) comes again, with the same id.

Events of one partitionkey (one row) come in the order of the database; so do all events of the stream here, for there is
one reader. Several readers share the work by partition: events.shop.*.*.0, events.shop.*.*.1 and so on.

--count N ends it after N events. NATS_URL says where the broker is (nats://127.0.0.1:4222).
"""

import argparse
import asyncio
import collections
import json
import os

import nats
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy


async def messages(jetstream, stream, arguments):
    """The messages, one after the other, for ever."""
    if arguments.durable:
        # One event under way at a time, so that one that comes again does not come after its successors.
        # One that was not acknowledged comes again after ack_wait seconds: longer than handling one takes.
        config = ConsumerConfig(ack_policy=AckPolicy.EXPLICIT, max_ack_pending=1, ack_wait=10)
        subscription = await jetstream.pull_subscribe(arguments.subject, arguments.durable, stream, config=config)
        while True:
            try:
                batch = await subscription.fetch(1, timeout=30)
            except nats.errors.TimeoutError:
                continue  # nothing new
            for message in batch:
                yield message
    else:
        config = ConsumerConfig(deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=arguments.after + 1)
        subscription = await jetstream.subscribe(arguments.subject, stream=stream, config=config, ordered_consumer=True)
        async for message in subscription.messages:
            yield message


async def main():
    parser = argparse.ArgumentParser(description="Prints the events of one source as they arrive.")
    parser.add_argument("subject", nargs="?", default="events.shop.>")
    parser.add_argument("--durable", metavar="NAME", help="let the broker remember what was acknowledged")
    parser.add_argument("--after", type=int, default=0, metavar="SEQUENCE", help="go on after this sequence of the stream")
    parser.add_argument("--count", type=int, metavar="N", help="end after this many events")
    arguments = parser.parse_args()

    client = await nats.connect(os.environ.get("NATS_URL", "nats://127.0.0.1:4222"))
    # The stream's name is EVENTS_ and the source's name, which is the second token of the subject.
    stream = "EVENTS_" + arguments.subject.split(".")[1]

    seen = collections.Counter()
    async for message in messages(client.jetstream(), stream, arguments):
        event = json.loads(message.data)
        key = event["partitionkey"]
        seen[key] += 1
        # Here an agent would act. `after` is null for a deleted row, `before` where the database did not log it. Not every event
        # is a row's: new shapes and messages have no `after`, an outbox sends what the application wrote, which may be no
        # object, and a large event has no `data` but `dataref`, the place where it is kept (docs/events.md).
        data = event.get("data")
        after = json.dumps(data.get("after") if isinstance(data, dict) else None, separators=(",", ":"), ensure_ascii=False)
        print(f"{message.metadata.sequence.stream} {key} {event['type']} #{seen[key]} {event['id']} {after}", flush=True)
        if arguments.durable:
            await message.ack_sync()
        if seen.total() == arguments.count:
            break
    await client.close()


if __name__ == "__main__":
    asyncio.run(main())
