package daymark.benches;

import jakarta.jms.Connection;
import jakarta.jms.MessageConsumer;
import jakarta.jms.MessageProducer;
import jakarta.jms.Session;
import java.net.URI;
import org.apache.qpid.jms.JmsConnection;
import org.apache.qpid.jms.JmsConnectionFactory;
import org.apache.qpid.jms.JmsConnectionListener;
import org.apache.qpid.jms.message.JmsInboundMessageDispatch;

/**
 * Sends one persistent message after another, each when the one before was acknowledged and a millisecond has passed,
 * and receives them on a second connection.
 *
 * <p>{@code Acknowledged URI QUEUE}. Prints {@code at HOST:PORT} when its producer's connection stands, again and again,
 * and {@code ack NANOSECONDS} for each acknowledgement, on the system's monotonic clock.
 */
public final class Acknowledged {
    private static final long PACE_MS = 1;

    public static void main(String[] arguments) throws Exception {
        JmsConnectionFactory factory = new JmsConnectionFactory(arguments[0]);
        Connection receiving = factory.createConnection();
        Session listening = receiving.createSession();
        listening.createConsumer(listening.createQueue(arguments[1])).setMessageListener(message -> {});
        receiving.start();
        JmsConnection sending = (JmsConnection) factory.createConnection();
        sending.addConnectionListener(new Places());
        sending.start();
        Session session = sending.createSession();
        MessageProducer producer = session.createProducer(session.createQueue(arguments[1]));
        while (true) {
            producer.send(session.createTextMessage("a message of the failover bench"));
            System.out.println("ack " + System.nanoTime());
            Thread.sleep(PACE_MS);
        }
    }

    /** Says where the connection stands. */
    private static final class Places implements JmsConnectionListener {
        @Override
        public void onConnectionEstablished(URI broker) {
            say(broker);
        }

        @Override
        public void onConnectionRestored(URI broker) {
            say(broker);
        }

        private static void say(URI broker) {
            System.out.println("at " + broker.getHost() + ":" + broker.getPort());
        }

        @Override
        public void onConnectionFailure(Throwable error) {
            System.err.println("failed " + error);
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

    private Acknowledged() {}
}
