package daymark.interop;

import jakarta.jms.Connection;
import jakarta.jms.JMSException;
import jakarta.jms.MessageConsumer;
import jakarta.jms.MessageProducer;
import jakarta.jms.Session;
import jakarta.jms.TextMessage;
import java.net.URI;
import java.util.Set;
import java.util.concurrent.ConcurrentSkipListSet;
import java.util.concurrent.CountDownLatch;
import org.apache.qpid.jms.JmsConnection;
import org.apache.qpid.jms.JmsConnectionFactory;
import org.apache.qpid.jms.JmsConnectionListener;
import org.apache.qpid.jms.message.JmsInboundMessageDispatch;

/**
 * Sends numbered persistent messages and receives them, while somebody kills the broker.
 *
 * <p>{@code Failover HOST:PORT}: only the broker that is active now is named; the other one is learnt from it. Prints
 * {@code sent N} for each message, {@code restored HOST:PORT} for each connection that goes on elsewhere, and
 * {@code received all N} when both connections went on and every message came, after ten more were sent.
 */
public final class Failover {
    private static final int MORE = 10;

    public static void main(String[] arguments) throws Exception {
        JmsConnectionFactory factory = new JmsConnectionFactory("failover:(amqp://" + arguments[0] + ")");
        CountDownLatch restored = new CountDownLatch(2);
        Set<Integer> received = new ConcurrentSkipListSet<>();
        Connection receiving = connect(factory, restored);
        Session listening = receiving.createSession();
        listening.createConsumer(listening.createQueue("examples")).setMessageListener(message -> {
            try {
                received.add(Integer.parseInt(((TextMessage) message).getText()));
            } catch (JMSException unreadable) {
                System.out.println("unreadable " + unreadable);
            }
        });
        Session session = connect(factory, restored).createSession();
        MessageProducer producer = session.createProducer(session.createQueue("examples"));
        int number = 0;
        int after = 0;
        while (after < MORE) {
            if (restored.getCount() == 0) {
                after++;
            }
            producer.send(session.createTextMessage("" + ++number));
            System.out.println("sent " + number);
            Thread.sleep(2);
        }
        int count = number;
        Stage.eventually("all were received, not only " + received, () -> received.size() == count);
        System.out.println("received all " + count);
        System.exit(0);
    }

    /** A started connection that counts down when it goes on at another broker, or at the same one. */
    static Connection connect(JmsConnectionFactory factory, CountDownLatch restored) throws JMSException {
        JmsConnection connection = (JmsConnection) factory.createConnection();
        connection.addConnectionListener(new Restored(restored));
        connection.start();
        return connection;
    }

    /** Says when a connection goes on at another broker. */
    private record Restored(CountDownLatch restored) implements JmsConnectionListener {
        @Override
        public void onConnectionRestored(URI broker) {
            System.out.println("restored " + broker.getHost() + ":" + broker.getPort());
            restored.countDown();
        }

        @Override
        public void onConnectionEstablished(URI broker) {}

        @Override
        public void onConnectionFailure(Throwable error) {
            System.out.println("failed " + error);
        }

        @Override
        public void onConnectionInterrupted(URI broker) {}

        @Override
        public void onInboundMessage(JmsInboundMessageDispatch message) {}

        @Override
        public void onSessionClosed(Session session, Throwable error) {}

        @Override
        public void onConsumerClosed(MessageConsumer consumer, Throwable error) {}

        @Override
        public void onProducerClosed(MessageProducer producer, Throwable error) {}
    }

    private Failover() {}
}
