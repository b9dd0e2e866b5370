package daymark.interop;

import jakarta.jms.Connection;
import jakarta.jms.Destination;
import jakarta.jms.JMSException;
import jakarta.jms.Message;
import jakarta.jms.MessageConsumer;
import jakarta.jms.MessageProducer;
import jakarta.jms.Session;
import jakarta.jms.TextMessage;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import java.util.concurrent.CopyOnWriteArrayList;
import org.apache.qpid.jms.JmsConnectionFactory;

/** What a case works with: brokers, addresses of its own, and connections that are closed when it ends. */
final class Stage implements AutoCloseable {
    /** How long anything may take that should take milliseconds: the machine may be busy. */
    static final long SOON_MS = 30_000;

    private final String broker;
    private final String strict;
    /** The name of the case, which no other case uses for an address or a client id. */
    final String name;

    private final List<Connection> connections = new CopyOnWriteArrayList<>();

    Stage(String broker, String strict, String name) {
        this.broker = broker;
        this.strict = strict;
        this.name = name;
    }

    /** A factory with these options, such as {@code jms.clientID=me&amqp.idleTimeout=4000}. */
    JmsConnectionFactory factory(String options) {
        return new JmsConnectionFactory("amqp://" + broker + "?" + options);
    }

    /** The same for the broker that makes nothing on first use. */
    JmsConnectionFactory strictFactory() {
        return new JmsConnectionFactory("amqp://" + strict);
    }

    /** A started connection. */
    Connection connect() throws JMSException {
        return connect("");
    }

    Connection connect(String options) throws JMSException {
        return keep(factory(options).createConnection());
    }

    /** Starts a connection, to be closed when the case ends. */
    Connection keep(Connection connection) throws JMSException {
        connections.add(connection);
        connection.start();
        return connection;
    }

    Session session() throws JMSException {
        return session(Session.AUTO_ACKNOWLEDGE);
    }

    /** A session on a connection of its own. */
    Session session(int mode) throws JMSException {
        return connect().createSession(mode);
    }

    /** The queue of this case. */
    Destination queue(Session session) throws JMSException {
        return session.createQueue(name);
    }

    @Override
    public void close() {
        for (Connection connection : connections) {
            try {
                connection.close();
            } catch (JMSException gone) {
                // It may have been closed by the broker; the case has said what it thinks of that.
            }
        }
    }

    static void send(Session session, Destination to, String... texts) throws JMSException {
        MessageProducer producer = session.createProducer(to);
        for (String text : texts) {
            producer.send(session.createTextMessage(text));
        }
        producer.close();
    }

    /** The next message, which must come. */
    static Message next(MessageConsumer consumer) throws JMSException {
        return Objects.requireNonNull(consumer.receive(SOON_MS), "no message came");
    }

    static String nextText(MessageConsumer consumer) throws JMSException {
        return ((TextMessage) next(consumer)).getText();
    }

    static List<String> nextTexts(MessageConsumer consumer, int count) throws JMSException {
        List<String> texts = new ArrayList<>();
        for (int i = 0; i < count; i++) {
            texts.add(nextText(consumer));
        }
        return texts;
    }

    /** Nothing is there now: the broker has answered a drain. */
    static void nothing(MessageConsumer consumer) throws JMSException {
        Message message = consumer.receiveNoWait();
        check(message == null, "there should be nothing, but " + message);
    }

    static void check(boolean so, String otherwise) {
        if (!so) {
            throw new AssertionError(otherwise);
        }
    }

    static void same(Object expected, Object actual) {
        check(Objects.deepEquals(expected, actual), "expected " + expected + ", not " + actual);
    }

    /** What may throw. */
    interface Work {
        void run() throws Exception;
    }

    /** Does what must be refused with this exception, and returns it. */
    static <E extends Exception> E refused(Class<E> kind, Work work) throws Exception {
        try {
            work.run();
        } catch (Exception thrown) {
            if (kind.isInstance(thrown)) {
                return kind.cast(thrown);
            }
            throw new AssertionError("refused with " + thrown + ", not " + kind.getSimpleName(), thrown);
        }
        throw new AssertionError("not refused with " + kind.getSimpleName());
    }

    /** What can be asked. */
    interface Question {
        boolean isSo() throws Exception;
    }

    /** Waits until it is so. */
    static void eventually(String what, Question question) throws Exception {
        long deadline = System.nanoTime() + SOON_MS * 1_000_000;
        while (!question.isSo()) {
            check(System.nanoTime() < deadline, "still not: " + what);
            Thread.sleep(5);
        }
    }
}
