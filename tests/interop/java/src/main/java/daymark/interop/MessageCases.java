package daymark.interop;

import static daymark.interop.Stage.check;
import static daymark.interop.Stage.next;
import static daymark.interop.Stage.same;

import jakarta.jms.BytesMessage;
import jakarta.jms.DeliveryMode;
import jakarta.jms.JMSContext;
import jakarta.jms.MapMessage;
import jakarta.jms.Message;
import jakarta.jms.MessageConsumer;
import jakarta.jms.MessageProducer;
import jakarta.jms.ObjectMessage;
import jakarta.jms.Queue;
import jakarta.jms.Session;
import jakarta.jms.StreamMessage;
import jakarta.jms.TextMessage;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Random;
import java.util.TreeSet;

/** Every kind of message arrives as it was sent. */
final class MessageCases {
    public static void aTextArrivesAsSent(Stage stage) throws Exception {
        Session session = stage.session();
        String text = "Grüße, 世界 \uD83D\uDE00 " + "x".repeat(1_000);
        TextMessage received = (TextMessage) exchange(stage, session, session.createTextMessage(text));
        same(text, received.getText());
        TextMessage empty = (TextMessage) exchange(stage, session, session.createTextMessage());
        same(null, empty.getText());
    }

    public static void bytesArriveAsSent(Stage stage) throws Exception {
        Session session = stage.session();
        BytesMessage sent = session.createBytesMessage();
        sent.writeByte((byte) 1);
        sent.writeLong(Long.MIN_VALUE);
        sent.writeUTF("text");
        sent.writeDouble(0.5);
        BytesMessage received = (BytesMessage) exchange(stage, session, sent);
        same((byte) 1, received.readByte());
        same(Long.MIN_VALUE, received.readLong());
        same("text", received.readUTF());
        same(0.5, received.readDouble());
    }

    public static void aMapArrivesAsSent(Stage stage) throws Exception {
        Session session = stage.session();
        MapMessage sent = session.createMapMessage();
        sent.setBoolean("boolean", true);
        sent.setByte("byte", (byte) -1);
        sent.setShort("short", (short) -2);
        sent.setInt("int", Integer.MAX_VALUE);
        sent.setLong("long", Long.MAX_VALUE);
        sent.setChar("char", 'ß');
        sent.setFloat("float", 1.5f);
        sent.setDouble("double", -2.5);
        sent.setString("string", "value");
        sent.setBytes("bytes", new byte[] {1, 2, 3});
        MapMessage received = (MapMessage) exchange(stage, session, sent);
        same(new TreeSet<>(list(sent.getMapNames())), new TreeSet<>(list(received.getMapNames())));
        for (String name : list(sent.getMapNames())) {
            same(sent.getObject(name), received.getObject(name));
        }
    }

    public static void aStreamArrivesAsSent(Stage stage) throws Exception {
        Session session = stage.session();
        StreamMessage sent = session.createStreamMessage();
        List<Object> values = List.of(true, (byte) 1, (short) 2, 3, 4L, 5f, 6.0, 'c', "text");
        for (Object value : values) {
            sent.writeObject(value);
        }
        StreamMessage received = (StreamMessage) exchange(stage, session, sent);
        for (Object value : values) {
            same(value, received.readObject());
        }
    }

    public static void anObjectArrivesUnopened(Stage stage) throws Exception {
        Session session = stage.session();
        ArrayList<String> object = new ArrayList<>(List.of("a", "b"));
        ObjectMessage received = (ObjectMessage) exchange(stage, session, session.createObjectMessage(object));
        same(object, received.getObject());
    }

    public static void headersAndPropertiesArriveAsSent(Stage stage) throws Exception {
        Session session = stage.session();
        Message sent = session.createMessage();
        sent.setJMSCorrelationID("correlation");
        sent.setJMSType("type");
        sent.setJMSReplyTo(session.createTopic("reply"));
        sent.setStringProperty("JMSXGroupID", "group");
        sent.setIntProperty("JMSXGroupSeq", 7);
        sent.setBooleanProperty("boolean", true);
        sent.setByteProperty("byte", (byte) 1);
        sent.setShortProperty("short", (short) 2);
        sent.setIntProperty("int", 3);
        sent.setLongProperty("long", 4);
        sent.setFloatProperty("float", 5);
        sent.setDoubleProperty("double", 6);
        sent.setStringProperty("string", "ß");
        Message received = exchange(stage, session, sent);
        same(sent.getJMSMessageID(), received.getJMSMessageID());
        same(sent.getJMSTimestamp(), received.getJMSTimestamp());
        same("correlation", received.getJMSCorrelationID());
        same("type", received.getJMSType());
        same(session.createTopic("reply"), received.getJMSReplyTo());
        same(stage.queue(session), received.getJMSDestination());
        same(DeliveryMode.PERSISTENT, received.getJMSDeliveryMode());
        check(!received.getJMSRedelivered(), "delivered for the first time");
        same(1, received.getIntProperty("JMSXDeliveryCount"));
        for (String name : list(sent.getPropertyNames())) {
            if (!name.equals("JMSXDeliveryCount")) {
                same(sent.getObjectProperty(name), received.getObjectProperty(name));
            }
        }
    }

    public static void aMessageOf16MebibytesArrivesAsSent(Stage stage) throws Exception {
        large(stage, stage.session());
    }

    public static void aMessageOf16MebibytesArrivesInFramesOf4Kibibytes(Stage stage) throws Exception {
        large(stage, stage.connect("amqp.maxFrameSize=4096").createSession());
    }

    private static void large(Stage stage, Session session) throws Exception {
        byte[] body = new byte[16 << 20];
        new Random(16).nextBytes(body);
        BytesMessage sent = session.createBytesMessage();
        sent.writeBytes(body);
        BytesMessage received = (BytesMessage) exchange(stage, session, sent);
        byte[] back = new byte[body.length];
        same((long) body.length, received.getBodyLength());
        same(body.length, received.readBytes(back));
        same(body, back);
    }

    public static void messagesLargerThanTheBrokerTakesAreRefusedAndTheConnectionLives(Stage stage) throws Exception {
        Session session = stage.session();
        BytesMessage large = session.createBytesMessage();
        large.writeBytes(new byte[33 << 20]);
        MessageProducer producer = session.createProducer(stage.queue(session));
        Stage.refused(jakarta.jms.JMSException.class, () -> producer.send(large));
        Session other = stage.session();
        Stage.send(other, stage.queue(other), "small");
        same("small", Stage.nextText(other.createConsumer(stage.queue(other))));
    }

    public static void theSimplifiedInterfaceWorks(Stage stage) throws Exception {
        try (JMSContext context = stage.factory("").createContext()) {
            Queue queue = context.createQueue(stage.name);
            context.createProducer().setProperty("number", 1).setJMSType("t").send(queue, "text");
            Message received = context.createConsumer(queue).receive(Stage.SOON_MS);
            same("text", received.getBody(String.class));
            same(1, received.getIntProperty("number"));
        }
    }

    /** Sends a message through the case's queue and back. */
    private static Message exchange(Stage stage, Session session, Message message) throws Exception {
        MessageProducer producer = session.createProducer(stage.queue(session));
        producer.send(message);
        MessageConsumer consumer = session.createConsumer(stage.queue(session));
        Message received = next(consumer);
        consumer.close();
        producer.close();
        return received;
    }

    @SuppressWarnings("unchecked")
    private static List<String> list(java.util.Enumeration<?> names) {
        return Collections.list((java.util.Enumeration<String>) names);
    }

    private MessageCases() {}
}
