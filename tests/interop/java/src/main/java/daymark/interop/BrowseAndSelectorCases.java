package daymark.interop;

import static daymark.interop.Stage.check;
import static daymark.interop.Stage.nextText;
import static daymark.interop.Stage.nextTexts;
import static daymark.interop.Stage.nothing;
import static daymark.interop.Stage.refused;
import static daymark.interop.Stage.same;
import static daymark.interop.Stage.send;

import jakarta.jms.InvalidSelectorException;
import jakarta.jms.JMSException;
import jakarta.jms.Message;
import jakarta.jms.MessageConsumer;
import jakarta.jms.MessageProducer;
import jakarta.jms.Queue;
import jakarta.jms.QueueBrowser;
import jakarta.jms.Session;
import jakarta.jms.TextMessage;
import java.util.ArrayList;
import java.util.Enumeration;
import java.util.List;

/** Looking at a queue, and choosing from it. */
final class BrowseAndSelectorCases {
    public static void aBrowserSeesEverythingAndTakesNothing(Stage stage) throws Exception {
        Session session = stage.session();
        Queue queue = session.createQueue(stage.name);
        same(List.of(), browse(session.createBrowser(queue)));
        send(session, queue, "1", "2", "3");
        QueueBrowser browser = session.createBrowser(queue);
        same(List.of("1", "2", "3"), browse(browser));
        same(List.of("1", "2", "3"), browse(browser));
        same(List.of("1", "2", "3"), nextTexts(session.createConsumer(queue), 3));
        same(List.of(), browse(browser));
    }

    public static void aBrowserChooses(Stage stage) throws Exception {
        Session session = stage.session();
        numbered(stage, session, 6);
        Queue queue = session.createQueue(stage.name);
        same(List.of("4", "5"), browse(session.createBrowser(queue, "number > 3")));
    }

    public static void aSelectorTakesWhatItChoosesAndLeavesTheRest(Stage stage) throws Exception {
        Session session = stage.session();
        numbered(stage, session, 6);
        MessageConsumer odd = session.createConsumer(stage.queue(session), "number = 1 OR number = 3 OR number >= 5");
        same(List.of("1", "3", "5"), nextTexts(odd, 3));
        nothing(odd);
        odd.close();
        same(List.of("0", "2", "4"), nextTexts(session.createConsumer(stage.queue(session)), 3));
    }

    public static void everyKindOfConditionChooses(Stage stage) throws Exception {
        Session session = stage.session();
        MessageProducer producer = session.createProducer(stage.queue(session));
        Message message = session.createTextMessage("found");
        message.setJMSType("order");
        message.setJMSCorrelationID("c-1");
        message.setStringProperty("colour", "red");
        message.setStringProperty("path", "a_b%c");
        message.setIntProperty("weight", 2500);
        message.setDoubleProperty("price", 9.5);
        message.setBooleanProperty("urgent", true);
        List<String> conditions = List.of(
                "JMSType = 'order' AND weight > 2000",
                "JMSCorrelationID = 'c-1'",
                "JMSPriority = 4 AND JMSDeliveryMode = 'PERSISTENT'",
                "colour IN ('green', 'red') AND colour NOT IN ('blue')",
                "colour LIKE 'r%' AND colour LIKE '_ed' AND colour NOT LIKE 'g%'",
                "path LIKE 'a\\_b\\%%' ESCAPE '\\'",
                "weight BETWEEN 2000 AND 3000 AND weight NOT BETWEEN 1 AND 2",
                "missing IS NULL AND colour IS NOT NULL",
                "price * 2 - 1 = 18.0 AND (weight + 500) / 3 = 1000",
                "urgent = TRUE AND NOT (urgent = FALSE)",
                "urgent AND (missing = 1 OR weight >= 2500.0)",
                "-weight < 0 AND weight <> 1e3");
        for (String condition : conditions) {
            producer.send(message);
            MessageConsumer consumer = session.createConsumer(stage.queue(session), condition);
            try {
                same("found", nextText(consumer));
            } catch (NullPointerException nothing) {
                throw new AssertionError("not chosen by " + condition);
            }
            consumer.close();
        }
        producer.send(message);
        for (String condition : List.of("missing = 1", "NOT (missing = 1)", "colour = 'blue'", "weight = '2500'")) {
            MessageConsumer consumer = session.createConsumer(stage.queue(session), condition);
            nothing(consumer);
            consumer.close();
        }
    }

    public static void aSelectorThatMakesNoSenseIsRefused(Stage stage) throws Exception {
        Session session = stage.session();
        refused(InvalidSelectorException.class, () -> session.createConsumer(stage.queue(session), "number ="));
        // Without the client's own check the broker's refusal is what the program sees.
        Session unchecked = stage.connect("jms.validateSelector=false").createSession();
        JMSException refusal =
                refused(JMSException.class, () -> unchecked.createConsumer(stage.queue(unchecked), "number ="));
        check(refusal.getMessage().contains("amqp:invalid-field"), "" + refusal);
        send(unchecked, stage.queue(unchecked), "alive");
        same("alive", nextText(unchecked.createConsumer(stage.queue(unchecked))));
    }

    /** Messages with their number as text and as property. */
    private static void numbered(Stage stage, Session session, int count) throws Exception {
        MessageProducer producer = session.createProducer(stage.queue(session));
        for (int i = 0; i < count; i++) {
            Message message = session.createTextMessage("" + i);
            message.setIntProperty("number", i);
            producer.send(message);
        }
    }

    private static List<String> browse(QueueBrowser browser) throws Exception {
        List<String> seen = new ArrayList<>();
        for (Enumeration<?> messages = browser.getEnumeration(); messages.hasMoreElements(); ) {
            seen.add(((TextMessage) messages.nextElement()).getText());
        }
        return seen;
    }

    private BrowseAndSelectorCases() {}
}
