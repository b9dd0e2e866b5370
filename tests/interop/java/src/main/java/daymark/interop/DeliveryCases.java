package daymark.interop;

import static daymark.interop.Stage.check;
import static daymark.interop.Stage.next;
import static daymark.interop.Stage.nextText;
import static daymark.interop.Stage.nextTexts;
import static daymark.interop.Stage.nothing;
import static daymark.interop.Stage.same;
import static daymark.interop.Stage.send;

import jakarta.jms.DeliveryMode;
import jakarta.jms.Message;
import jakarta.jms.MessageConsumer;
import jakarta.jms.MessageProducer;
import jakarta.jms.Session;
import java.util.List;

/** When, in which order, and for how long a message may be delivered. */
final class DeliveryCases {
    public static void higherPrioritiesGoFirst(Stage stage) throws Exception {
        Session session = stage.session();
        MessageProducer producer = session.createProducer(stage.queue(session));
        for (int priority : new int[] {1, 9, 4, 9, 0}) {
            Message message = session.createTextMessage("" + priority);
            producer.send(message, DeliveryMode.PERSISTENT, priority, 0);
        }
        MessageConsumer consumer = session.createConsumer(stage.queue(session));
        same(List.of("9", "9", "4", "1", "0"), nextTexts(consumer, 5));
    }

    public static void anExpiredMessageIsNotDelivered(Stage stage) throws Exception {
        // The client would hide expired messages itself; here it shows what the broker delivers.
        Session session = stage.connect("jms.localMessageExpiry=false").createSession();
        MessageProducer producer = session.createProducer(stage.queue(session));
        producer.setTimeToLive(20);
        producer.send(session.createTextMessage("short-lived"));
        producer.setTimeToLive(600_000);
        producer.send(session.createTextMessage("long-lived"));
        Thread.sleep(100); // It has certainly expired then, however slow this was.
        MessageConsumer consumer = session.createConsumer(stage.queue(session));
        same("long-lived", nextText(consumer));
        nothing(consumer);
    }

    public static void aDelayedMessageComesInItsTime(Stage stage) throws Exception {
        Session session = stage.session();
        MessageProducer producer = session.createProducer(stage.queue(session));
        producer.setDeliveryDelay(1_500);
        Message delayed = session.createTextMessage("later");
        producer.send(delayed);
        producer.setDeliveryDelay(0);
        producer.send(session.createTextMessage("now"));
        MessageConsumer consumer = session.createConsumer(stage.queue(session));
        same("now", nextText(consumer));
        Message late = next(consumer);
        same("later", late.getBody(String.class));
        same(delayed.getJMSDeliveryTime(), late.getJMSDeliveryTime());
        check(System.currentTimeMillis() >= late.getJMSDeliveryTime(), "it came too early");
    }

    public static void nonPersistentMessagesAreDelivered(Stage stage) throws Exception {
        Session session = stage.session();
        MessageProducer producer = session.createProducer(stage.queue(session));
        producer.setDeliveryMode(DeliveryMode.NON_PERSISTENT);
        producer.send(session.createTextMessage("1"));
        Message received = next(session.createConsumer(stage.queue(session)));
        same(DeliveryMode.NON_PERSISTENT, received.getJMSDeliveryMode());
    }

    public static void presettledMessagesAreDelivered(Stage stage) throws Exception {
        Session session = stage.connect("jms.presettlePolicy.presettleAll=true").createSession();
        send(session, stage.queue(session), "1", "2");
        Session receiving = stage.session();
        same(List.of("1", "2"), nextTexts(receiving.createConsumer(stage.queue(receiving)), 2));
    }

    private DeliveryCases() {}
}
