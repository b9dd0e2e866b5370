package daymark.examples;

import jakarta.jms.ConnectionFactory;
import jakarta.jms.JMSContext;
import jakarta.jms.Queue;
import javax.naming.InitialContext;

/** Sends a message to a queue and receives it, both found by name. */
public final class SendReceive {
    public static void main(String[] arguments) throws Exception {
        InitialContext names = new InitialContext();
        ConnectionFactory factory = (ConnectionFactory) names.lookup("QueueConnectionFactory");
        Queue queue = (Queue) names.lookup("ExamplesQueue");
        try (JMSContext context = factory.createContext()) {
            context.createProducer().send(queue, "hello from Java"); // Returns when the message is stored.
            String text = context.createConsumer(queue).receiveBody(String.class, 30_000);
            System.out.println("received: " + text);
        }
    }

    private SendReceive() {}
}
