package daymark.interop;

import jakarta.jms.Connection;
import jakarta.jms.JMSException;
import jakarta.jms.Message;
import jakarta.jms.MessageConsumer;
import jakarta.jms.MessageProducer;
import jakarta.jms.Session;
import jakarta.jms.TextMessage;
import jakarta.jms.TransactionRolledBackException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.UUID;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.qpid.jms.JmsConnection;
import org.apache.qpid.jms.JmsConnectionFactory;

/**
 * Producers and consumers of a soak, each on a connection and a queue of its own.
 *
 * <p>{@code Soak URI FILE PACE CLIENT...}: a client is {@code send}, {@code send-transacted}, {@code receive} or {@code
 * receive-transacted}, a colon, and the name of its stream. Once FILE exists, producers send the end mark and end; a
 * consumer ends when the end mark has come and nothing behind it. Prints what became of each message:
 *
 * <ul>
 *   <li>{@code sending STREAM N}, {@code acknowledged STREAM N};
 *   <li>{@code delivered TERM STREAM N} or {@code redelivered TERM STREAM N}: TERM counts how often the connection was
 *       interrupted;
 *   <li>{@code settled TERM STREAM N}: it was accepted, which AMQP does not confirm, no earlier than in this TERM;
 *   <li>{@code consumed STREAM N}: a commit confirmed it; {@code perhaps STREAM N}: a commit was interrupted;
 *   <li>{@code returned STREAM N}: it is given back with its session, as if it had not been delivered;
 *   <li>{@code ended CLIENT}.
 * </ul>
 */
public final class Soak {
    private static final int TRANSACTION = 5;
    private static final long RECEIVE_MS = 500;
    /** Longer than the group is ever without an active broker. */
    private static final long STUCK_NS = 60_000_000_000L;
    private static final String END = "end";

    private final JmsConnectionFactory factory;
    private final Path over;
    private final long paceMs;
    private final Map<String, Long> progress = new ConcurrentHashMap<>();
    private final Map<String, AtomicInteger> terms = new ConcurrentHashMap<>();
    /** The number of each stream's next message. */
    private final Map<String, Long> numbers = new ConcurrentHashMap<>();
    /** The streams whose end mark has come. */
    private final Set<String> marked = ConcurrentHashMap.newKeySet();

    private Soak(JmsConnectionFactory factory, Path over, long paceMs) {
        this.factory = factory;
        this.over = over;
        this.paceMs = paceMs;
    }

    public static void main(String[] arguments) throws Exception {
        JmsConnectionFactory factory = new JmsConnectionFactory(arguments[0]);
        Soak soak = new Soak(factory, Path.of(arguments[1]), Long.parseLong(arguments[2]));
        Map<String, Thread> threads = new TreeMap<>();
        for (int at = 3; at < arguments.length; at++) {
            String client = arguments[at];
            Thread thread = new Thread(() -> soak.run(client), client);
            threads.put(client, thread);
            thread.start();
        }
        while (threads.values().stream().anyMatch(Thread::isAlive)) {
            Thread.sleep(1_000);
            threads.values().stream().filter(Thread::isAlive).forEach(soak::wakeIfStuck);
        }
        System.exit(0);
    }

    /**
     * This client waits for ever where the connection is lost while it makes a transacted session anew
     * (JmsLocalTransactionContext.onConnectionRecovery, docs/client.md): the program gives such a connection up.
     */
    private void wakeIfStuck(Thread thread) {
        long since = progress.getOrDefault(thread.getName(), System.nanoTime());
        if (System.nanoTime() - since > STUCK_NS) {
            say("stuck " + thread.getName());
            progressed(thread.getName());
            thread.interrupt();
        }
    }

    private void progressed(String client) {
        progress.put(client, System.nanoTime());
    }

    private void run(String client) {
        String stream = client.substring(client.indexOf(':') + 1);
        while (!serve(client, stream)) {}
        say("ended " + client);
    }

    /** Works with one connection; returns whether all is done. */
    private boolean serve(String client, String stream) {
        String kind = client.substring(0, client.indexOf(':'));
        boolean transacted = kind.endsWith("-transacted");
        AtomicInteger term = terms.computeIfAbsent(client, named -> new AtomicInteger());
        JmsConnection connection = null;
        try {
            progressed(client);
            connection = (JmsConnection) factory.createConnection();
            connection.addConnectionListener(new Interruptions(term));
            connection.start();
            if (kind.startsWith("send")) {
                send(open(connection, transacted), stream, transacted);
            } else {
                while (!receive(open(connection, transacted), stream, transacted, term)) {}
            }
            return true;
        } catch (JMSException | InterruptedException lost) {
            say("gave up a connection of " + client + ": " + lost);
            Thread.interrupted();
            term.incrementAndGet();
            return false;
        } finally {
            abandon(connection);
        }
    }

    /** Closes a connection that may be stuck. */
    private static void abandon(Connection connection) {
        Thread closing = new Thread(() -> {
            try {
                if (connection != null) {
                    connection.close();
                }
            } catch (JMSException gone) {
                // It is over either way.
            }
        });
        closing.setDaemon(true);
        closing.start();
    }

    private static Session open(Connection connection, boolean transacted) throws JMSException {
        return connection.createSession(transacted ? Session.SESSION_TRANSACTED : Session.AUTO_ACKNOWLEDGE);
    }

    private void send(Session session, String stream, boolean transacted) throws JMSException, InterruptedException {
        MessageProducer producer = session.createProducer(session.createQueue("soak." + stream));
        while (!Files.exists(over)) {
            progressed(Thread.currentThread().getName());
            long number = numbers.getOrDefault(stream, 0L);
            int count = transacted ? TRANSACTION : 1;
            List<String> texts = new ArrayList<>();
            for (int index = 0; index < count; index++) {
                say("sending " + stream + " " + number);
                texts.add(stream + " " + number++);
            }
            numbers.put(stream, number);
            transmit(session, producer, texts, transacted);
            texts.forEach(text -> say("acknowledged " + text));
            Thread.sleep(paceMs);
        }
        transmit(session, producer, List.of(stream + " " + END), transacted);
    }

    /** Returns when it is acknowledged; otherwise its outcome is unknown. What is sent again has its old id. */
    private void transmit(Session session, MessageProducer producer, List<String> texts, boolean transacted)
            throws JMSException, InterruptedException {
        List<Message> messages = new ArrayList<>();
        for (String text : texts) {
            Message message = session.createTextMessage(text);
            message.setStringProperty("_AMQ_DUPL_ID", UUID.randomUUID().toString());
            messages.add(message);
        }
        while (true) {
            try {
                for (Message message : messages) {
                    producer.send(message);
                }
                if (transacted) {
                    session.commit();
                }
                return;
            } catch (JMSException unknown) {
                if (String.valueOf(unknown.getMessage()).contains("duplicate id")) {
                    return; // It had been committed before.
                }
                if (unknown instanceof TransactionRolledBackException) {
                    Thread.sleep(paceMs);
                    continue;
                }
                say("unknown " + texts + ": " + unknown);
                throw unknown;
            }
        }
    }

    /**
     * Returns whether all was received. If a commit fails it goes on with another session: this client gives back
     * what it had fetched ahead when it refuses to commit, and would show it to the program all the same (docs/client.md).
     */
    private boolean receive(Session session, String stream, boolean transacted, AtomicInteger term) throws JMSException {
        MessageConsumer consumer = session.createConsumer(session.createQueue("soak." + stream));
        while (true) {
            progressed(Thread.currentThread().getName());
            List<String> taken = new ArrayList<>();
            int before = term.get();
            try {
                take(consumer, stream, transacted ? TRANSACTION : 1, taken, term);
                if (taken.isEmpty() && marked.contains(stream)) {
                    return true;
                }
                if (transacted) {
                    session.commit();
                }
                settle(transacted ? "consumed" : "settled " + before, stream, taken);
            } catch (JMSException lost) {
                // Where the connection was lost inside the commit, this client only believes that it was rolled
                // back: the broker may have committed. Otherwise all of it comes again.
                boolean certain = lost instanceof TransactionRolledBackException
                        && !String.valueOf(lost.getMessage()).startsWith("Commit failed");
                if (!certain) {
                    say("unknown " + taken + ": " + lost);
                    settle("perhaps", stream, taken);
                }
                if (!(lost instanceof TransactionRolledBackException)) {
                    throw lost; // This connection is given up.
                }
                tell("returned", stream, taken);
                session.close();
                return false;
            }
        }
    }

    private void settle(String what, String stream, List<String> taken) {
        tell(what, stream, taken);
        if (taken.contains(stream + " " + END)) {
            marked.add(stream);
        }
    }

    private void take(MessageConsumer consumer, String stream, int count, List<String> taken, AtomicInteger term)
            throws JMSException {
        long patience = RECEIVE_MS;
        while (taken.size() < count) {
            Message message = consumer.receive(patience);
            if (message == null) {
                return;
            }
            String text = ((TextMessage) message).getText();
            String what = message.getJMSRedelivered() ? "redelivered " : "delivered ";
            tell(what + term.get(), stream, List.of(text));
            taken.add(text);
            patience = 1;
        }
    }

    private static void tell(String what, String stream, List<String> texts) {
        for (String text : texts) {
            if (!text.equals(stream + " " + END)) {
                say(what + " " + text);
            }
        }
    }

    private static void say(String line) {
        synchronized (System.out) {
            System.out.println(line);
            System.out.flush();
        }
    }
}
