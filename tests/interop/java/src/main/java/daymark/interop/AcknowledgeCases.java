package daymark.interop;

import static daymark.interop.Stage.check;
import static daymark.interop.Stage.next;
import static daymark.interop.Stage.nextText;
import static daymark.interop.Stage.nextTexts;
import static daymark.interop.Stage.nothing;
import static daymark.interop.Stage.same;
import static daymark.interop.Stage.send;

import jakarta.jms.Connection;
import jakarta.jms.JMSException;
import jakarta.jms.Message;
import jakarta.jms.MessageConsumer;
import jakarta.jms.Session;
import jakarta.jms.TextMessage;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

/** Acknowledge modes and the outcomes they become. */
final class AcknowledgeCases {
    private static final int INDIVIDUAL_ACKNOWLEDGE = 101;
    private static final int NO_ACKNOWLEDGE = 100;
    private static final String ACK_TYPE = "JMS_AMQP_ACK_TYPE";
    private static final int REJECTED = 2;
    private static final int RELEASED = 3;
    private static final int MODIFIED_FAILED = 4;

    public static void autoAcknowledgeTakesMessagesAway(Stage stage) throws Exception {
        takenAway(stage, Session.AUTO_ACKNOWLEDGE);
    }

    public static void dupsOkAcknowledgeTakesMessagesAway(Stage stage) throws Exception {
        takenAway(stage, Session.DUPS_OK_ACKNOWLEDGE);
    }

    public static void noAcknowledgeTakesMessagesAway(Stage stage) throws Exception {
        takenAway(stage, NO_ACKNOWLEDGE);
    }

    private static void takenAway(Stage stage, int mode) throws Exception {
        Session session = stage.session();
        send(session, stage.queue(session), "1", "2", "3");
        Connection connection = stage.connect("");
        Session receiving = connection.createSession(mode);
        same(List.of("1", "2", "3"), nextTexts(receiving.createConsumer(stage.queue(receiving)), 3));
        connection.close();
        nothing(session.createConsumer(stage.queue(session)));
    }

    public static void clientAcknowledgeTakesAwayAllSoFar(Stage stage) throws Exception {
        Session session = stage.session();
        send(session, stage.queue(session), "1", "2", "3");
        Connection connection = stage.connect();
        Session receiving = connection.createSession(Session.CLIENT_ACKNOWLEDGE);
        MessageConsumer consumer = receiving.createConsumer(stage.queue(receiving));
        same("1", nextText(consumer));
        next(consumer).acknowledge();
        same("3", nextText(consumer));
        connection.close();
        MessageConsumer after = session.createConsumer(stage.queue(session));
        Message again = next(after);
        same("3", ((TextMessage) again).getText());
        check(again.getJMSRedelivered(), "it was delivered before");
        nothing(after);
    }

    public static void recoverBringsMessagesBackInOrder(Stage stage) throws Exception {
        Session session = stage.session(Session.CLIENT_ACKNOWLEDGE);
        send(session, stage.queue(session), "1", "2", "3");
        MessageConsumer consumer = session.createConsumer(stage.queue(session));
        same(List.of("1", "2"), nextTexts(consumer, 2));
        session.recover();
        TextMessage first = (TextMessage) next(consumer);
        same("1", first.getText());
        check(first.getJMSRedelivered(), "it was delivered before");
        same(2, first.getIntProperty("JMSXDeliveryCount"));
        same(List.of("2", "3"), nextTexts(consumer, 2));
    }

    public static void eachMessageIsAcknowledgedOnItsOwn(Stage stage) throws Exception {
        Session session = stage.session();
        send(session, stage.queue(session), "1", "2", "3");
        Connection connection = stage.connect();
        Session receiving = connection.createSession(INDIVIDUAL_ACKNOWLEDGE);
        MessageConsumer consumer = receiving.createConsumer(stage.queue(receiving));
        next(consumer);
        next(consumer).acknowledge();
        next(consumer);
        connection.close();
        MessageConsumer after = session.createConsumer(stage.queue(session));
        same(List.of("1", "3"), nextTexts(after, 2));
        nothing(after);
    }

    public static void aRejectedMessageDoesNotComeBack(Stage stage) throws Exception {
        nothing(afterOutcome(stage, REJECTED));
    }

    public static void aReleasedMessageComesBackUncounted(Stage stage) throws Exception {
        Message again = next(afterOutcome(stage, RELEASED));
        same(1, again.getIntProperty("JMSXDeliveryCount"));
        check(!again.getJMSRedelivered(), "a released message counts as never delivered");
    }

    public static void aFailedMessageComesBackCounted(Stage stage) throws Exception {
        Message again = next(afterOutcome(stage, MODIFIED_FAILED));
        same(2, again.getIntProperty("JMSXDeliveryCount"));
        check(again.getJMSRedelivered(), "it was delivered before");
    }

    /** One message, received and given this outcome; then the consumer, for what comes next. */
    private static MessageConsumer afterOutcome(Stage stage, int outcome) throws Exception {
        Session session = stage.session(INDIVIDUAL_ACKNOWLEDGE);
        send(session, stage.queue(session), "1");
        MessageConsumer consumer = session.createConsumer(stage.queue(session));
        Message message = next(consumer);
        message.setIntProperty(ACK_TYPE, outcome);
        message.acknowledge();
        return consumer;
    }

    public static void aListenerGetsEveryMessageInOrder(Stage stage) throws Exception {
        Session session = stage.session();
        BlockingQueue<String> heard = new LinkedBlockingQueue<>();
        Session listening = stage.session();
        listening.createConsumer(stage.queue(listening)).setMessageListener(message -> {
            try {
                heard.add(((TextMessage) message).getText());
            } catch (JMSException unreadable) {
                heard.add(unreadable.toString());
            }
        });
        for (int i = 0; i < 100; i++) {
            send(session, stage.queue(session), "" + i);
        }
        for (int i = 0; i < 100; i++) {
            same("" + i, heard.poll(Stage.SOON_MS, TimeUnit.MILLISECONDS));
        }
    }

    public static void aListenerThatFailsIsGivenTheMessageAgain(Stage stage) throws Exception {
        Session session = stage.session();
        BlockingQueue<String> heard = new LinkedBlockingQueue<>();
        Session listening = stage.session();
        listening.createConsumer(stage.queue(listening)).setMessageListener(message -> {
            boolean first = heard.isEmpty();
            try {
                heard.add(((TextMessage) message).getText());
            } catch (JMSException unreadable) {
                heard.add(unreadable.toString());
            }
            if (first) {
                throw new IllegalStateException("the first time it fails");
            }
        });
        send(session, stage.queue(session), "1");
        Stage.eventually("the message came twice", () -> heard.size() == 2);
        same(List.of("1", "1"), List.copyOf(heard));
    }

    private AcknowledgeCases() {}
}
