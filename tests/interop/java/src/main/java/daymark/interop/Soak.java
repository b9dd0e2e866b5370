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
import org.apache.qpid.jms.JmsConnectionFactory;

/**
 * Producers and consumers of a soak, each on a connection and a queue of its own.
 *
 * <p>{@code Soak URI FILE PACE CLIENT...}: a client is {@code send}, {@code send-transacted}, {@code receive} or {@code
 * receive-transacted}, a colon, and the name of its stream. Once FILE exists, producers send the end mark and end; a
 * consumer ends when the end mark has come and nothing behind it. Prints what became of each message:
 * {@code sending STREAM N}, {@code acknowledged STREAM N}, {@code delivered TEXT} or {@code redelivered TEXT}, {@code consumed STREAM N}, {@code
 * perhaps STREAM N}; and {@code ended CLIENT}.
 */
public final class Soak {
    private static final int TRANSACTION = 5;
    private static final long RECEIVE_MS = 500;
    private static final String END = "end";

    private final JmsConnectionFactory factory;
    private final Path over;
    private final long paceMs;

    private Soak(JmsConnectionFactory factory, Path over, long paceMs) {
        this.factory = factory;
        this.over = over;
        this.paceMs = paceMs;
    }

    public static void main(String[] arguments) throws Exception {
        JmsConnectionFactory factory = new JmsConnectionFactory(arguments[0]);
        Soak soak = new Soak(factory, Path.of(arguments[1]), Long.parseLong(arguments[2]));
        List<Thread> threads = new ArrayList<>();
        for (int at = 3; at < arguments.length; at++) {
            String client = arguments[at];
            Thread thread = new Thread(() -> soak.run(client), client);
            thread.start();
            threads.add(thread);
        }
        for (Thread thread : threads) {
            thread.join();
        }
        System.exit(0);
    }

    private void run(String client) {
        String kind = client.substring(0, client.indexOf(':'));
        String stream = client.substring(client.indexOf(':') + 1);
        boolean transacted = kind.endsWith("-transacted");
        try (Connection connection = factory.createConnection()) {
            connection.start();
            Session session = connection.createSession(transacted ? Session.SESSION_TRANSACTED : Session.AUTO_ACKNOWLEDGE);
            if (kind.startsWith("send")) {
                send(session, stream, transacted);
            } else {
                receive(session, stream, transacted);
            }
            say("ended " + client);
        } catch (JMSException | InterruptedException failed) {
            say("failed " + client + ": " + failed);
        }
    }

    private void send(Session session, String stream, boolean transacted) throws JMSException, InterruptedException {
        MessageProducer producer = session.createProducer(session.createQueue("soak." + stream));
        long number = 0;
        while (!Files.exists(over)) {
            int count = transacted ? TRANSACTION : 1;
            List<String> texts = new ArrayList<>();
            for (int index = 0; index < count; index++) {
                say("sending " + stream + " " + number);
                texts.add(stream + " " + number++);
            }
            if (transmit(session, producer, texts, transacted)) {
                texts.forEach(text -> say("acknowledged " + text));
            }
            Thread.sleep(paceMs);
        }
        while (!transmit(session, producer, List.of(stream + " " + END), transacted)) {
            Thread.sleep(paceMs);
        }
    }

    /** Returns whether it is acknowledged; otherwise its outcome is unknown. */
    private boolean transmit(Session session, MessageProducer producer, List<String> texts, boolean transacted)
            throws InterruptedException {
        while (true) {
            try {
                for (String text : texts) {
                    producer.send(session.createTextMessage(text));
                }
                if (transacted) {
                    session.commit();
                }
                return true;
            } catch (TransactionRolledBackException lost) {
                Thread.sleep(paceMs);
            } catch (JMSException unknown) {
                say("unknown " + texts + ": " + unknown);
                if (transacted) {
                    undo(session);
                }
                return false;
            }
        }
    }

    private void receive(Session session, String stream, boolean transacted) throws JMSException {
        MessageConsumer consumer = session.createConsumer(session.createQueue("soak." + stream));
        boolean marked = false;
        while (true) {
            List<String> taken = new ArrayList<>();
            try {
                long patience = RECEIVE_MS;
                while (taken.size() < (transacted ? TRANSACTION : 1)) {
                    Message message = consumer.receive(patience);
                    if (message == null) {
                        break;
                    }
                    String text = ((TextMessage) message).getText();
                    if (!text.equals(stream + " " + END)) {
                        say((message.getJMSRedelivered() ? "redelivered " : "delivered ") + text);
                    }
                    taken.add(text);
                    patience = 1;
                }
                if (taken.isEmpty() && marked) {
                    return;
                }
                if (transacted) {
                    session.commit();
                }
                taken.forEach(text -> tell("consumed", stream, text));
                marked |= taken.contains(stream + " " + END);
            } catch (TransactionRolledBackException lost) {
                // Where the connection was lost inside the commit, this client only believes so: the broker may
                // have committed. Otherwise all of it comes again.
                if (String.valueOf(lost.getMessage()).startsWith("Commit failed")) {
                    taken.forEach(text -> tell("perhaps", stream, text));
                    marked |= taken.contains(stream + " " + END);
                }
            } catch (JMSException unknown) {
                say("unknown " + taken + ": " + unknown);
                taken.forEach(text -> tell("perhaps", stream, text));
                marked |= taken.contains(stream + " " + END);
                if (transacted) {
                    undo(session);
                }
            }
        }
    }

    private static void tell(String what, String stream, String text) {
        if (!text.equals(stream + " " + END)) {
            say(what + " " + text);
        }
    }

    private static void undo(Session session) {
        try {
            session.rollback();
        } catch (JMSException lost) {
            // It is rolled back with its connection.
        }
    }

    private static void say(String line) {
        synchronized (System.out) {
            System.out.println(line);
            System.out.flush();
        }
    }
}
