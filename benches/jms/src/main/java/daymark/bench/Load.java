package daymark.bench;

import jakarta.jms.BytesMessage;
import jakarta.jms.Connection;
import jakarta.jms.DeliveryMode;
import jakarta.jms.JMSException;
import jakarta.jms.MessageConsumer;
import jakarta.jms.MessageProducer;
import jakarta.jms.Queue;
import jakarta.jms.Session;
import org.apache.qpid.jms.JmsConnectionFactory;

/**
 * One producer and one consumer on Apache Qpid JMS, each with a connection of its own: non-persistent messages,
 * acknowledged one by one.
 *
 * <p>{@code Load HOST:PORT QUEUE MESSAGES BYTES} prints the messages of each second between the first and the last that
 * was received. What the programs need to warm up is sent before and not counted.
 */
public final class Load {
    private static final int WARM_UP = 4;
    private static final long PATIENCE_MS = 30_000;

    private Load() {}

    public static void main(String[] words) throws Exception {
        String queue = words[1];
        int messages = Integer.parseInt(words[2]);
        int bytes = Integer.parseInt(words[3]);
        JmsConnectionFactory factory = new JmsConnectionFactory("amqp://" + words[0] + "?jms.forceAsyncSend=true");
        try (Connection sending = factory.createConnection();
                Connection receiving = factory.createConnection()) {
            receiving.start();
            Session session = receiving.createSession(Session.AUTO_ACKNOWLEDGE);
            MessageConsumer consumer = session.createConsumer(session.createQueue(queue));
            Thread producer = new Thread(() -> send(sending, queue, messages + messages / WARM_UP, bytes), "producer");
            producer.setDaemon(true);
            producer.start();
            receive(consumer, messages / WARM_UP);
            long began = System.nanoTime();
            receive(consumer, messages);
            System.out.printf("%.0f%n", messages * 1e9 / (System.nanoTime() - began));
            producer.join(PATIENCE_MS);
        }
        System.exit(0);
    }

    private static void receive(MessageConsumer consumer, int messages) throws JMSException {
        for (int received = 0; received < messages; received++) {
            if (consumer.receive(PATIENCE_MS) == null) {
                throw new JMSException("no message came for " + PATIENCE_MS + " ms after " + received);
            }
        }
    }

    private static void send(Connection connection, String name, int messages, int bytes) {
        try {
            Session session = connection.createSession(Session.AUTO_ACKNOWLEDGE);
            Queue queue = session.createQueue(name);
            MessageProducer producer = session.createProducer(queue);
            producer.setDeliveryMode(DeliveryMode.NON_PERSISTENT);
            producer.setDisableMessageTimestamp(true);
            byte[] body = new byte[bytes];
            for (int sent = 0; sent < messages; sent++) {
                BytesMessage message = session.createBytesMessage();
                message.writeBytes(body);
                producer.send(message);
            }
        } catch (JMSException error) {
            System.err.println("the producer: " + error);
            System.exit(1);
        }
    }
}
