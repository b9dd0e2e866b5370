package daymark.interop;

import jakarta.jms.Connection;
import jakarta.jms.JMSException;
import jakarta.jms.Message;
import jakarta.jms.MessageConsumer;
import jakarta.jms.MessageProducer;
import jakarta.jms.Session;
import jakarta.jms.TextMessage;
import jakarta.jms.TransactionRolledBackException;
import java.lang.reflect.Method;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.apache.qpid.jms.JmsConnectionFactory;
import org.apache.qpid.jms.JmsMessageConsumer;

/**
 * Receives in a transaction while somebody cuts the connection, and goes on when the commit was refused.
 *
 * <p>{@code InDoubt HOST:PORT CUT QUEUE careful|careless}: messages are sent to the broker at HOST:PORT and received through
 * CUT, a HOST:PORT that is cut after the third one was accepted. Who is careful closes the session after the refused
 * commit. Prints {@code committed N twice M}: so many messages were committed, and so many of them more than once.
 */
public final class InDoubt {
    private static final int MESSAGES = 20;
    private static final int BEFORE_THE_CUT = 3;
    private static final int TRANSACTION = 5;
    private static final long PATIENCE_MS = 30_000;
    private static final long NOTHING_MS = 1_000;

    public static void main(String[] arguments) throws Exception {
        send(arguments[0], arguments[2]);
        boolean careful = arguments[3].equals("careful");
        JmsConnectionFactory factory = new JmsConnectionFactory("failover:(amqp://" + arguments[1] + ")");
        CountDownLatch restored = new CountDownLatch(1);
        try (Connection connection = Failover.connect(factory, restored)) {
            Session session = connection.createSession(Session.SESSION_TRANSACTED);
            MessageConsumer consumer = session.createConsumer(session.createQueue(arguments[2]));
            for (int number = 0; number < BEFORE_THE_CUT; number++) {
                consumer.receive(PATIENCE_MS);
            }
            Stage.check(restored.await(PATIENCE_MS, TimeUnit.MILLISECONDS), "the connection was not made anew");
            consumer.receive(PATIENCE_MS);
            Stage.eventually("messages are fetched ahead", () -> fetchedAhead(consumer) > 0);
            try {
                session.commit();
                throw new AssertionError("half of a lost transaction was committed");
            } catch (TransactionRolledBackException expected) {
                System.out.println("refused " + expected.getMessage());
            }
            if (careful) {
                session.close();
                Session next = connection.createSession(Session.SESSION_TRANSACTED);
                count(next, next.createConsumer(next.createQueue(arguments[2])));
            } else {
                count(session, consumer);
            }
        }
        System.exit(0);
    }

    private static void send(String broker, String queue) throws JMSException {
        try (Connection connection = new JmsConnectionFactory("amqp://" + broker).createConnection()) {
            Session session = connection.createSession();
            MessageProducer producer = session.createProducer(session.createQueue(queue));
            for (int number = 0; number < MESSAGES; number++) {
                producer.send(session.createTextMessage("" + number));
            }
        }
    }

    private static int fetchedAhead(MessageConsumer consumer) throws ReflectiveOperationException {
        Method size = JmsMessageConsumer.class.getDeclaredMethod("getMessageQueueSize");
        size.setAccessible(true);
        return (int) size.invoke(consumer);
    }

    /** Commits all there is. */
    private static void count(Session session, MessageConsumer consumer) throws JMSException {
        Map<Integer, Integer> committed = new TreeMap<>();
        Message message = consumer.receive(PATIENCE_MS);
        while (message != null) {
            for (int taken = 1; message != null && taken <= TRANSACTION; taken++) {
                committed.merge(Integer.parseInt(((TextMessage) message).getText()), 1, Integer::sum);
                message = taken < TRANSACTION ? consumer.receive(NOTHING_MS) : null;
            }
            session.commit();
            message = consumer.receive(NOTHING_MS);
        }
        long twice = committed.values().stream().filter(times -> times > 1).count();
        System.out.println("committed " + committed.size() + " twice " + twice);
    }

    private InDoubt() {}
}
