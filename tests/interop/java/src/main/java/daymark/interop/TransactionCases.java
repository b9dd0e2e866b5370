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
import jakarta.jms.Topic;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

/** Local transactions: all of it or nothing. */
final class TransactionCases {
    public static void sentMessagesAppearWithTheCommit(Stage stage) throws Exception {
        Session transacted = stage.session(Session.SESSION_TRANSACTED);
        Session session = stage.session();
        MessageConsumer consumer = session.createConsumer(stage.queue(session));
        send(transacted, stage.queue(transacted), "1", "2", "3");
        nothing(consumer);
        transacted.commit();
        same(List.of("1", "2", "3"), nextTexts(consumer, 3));
        nothing(consumer);
    }

    public static void sentMessagesVanishWithTheRollback(Stage stage) throws Exception {
        Session transacted = stage.session(Session.SESSION_TRANSACTED);
        Session session = stage.session();
        send(transacted, stage.queue(transacted), "never");
        transacted.rollback();
        send(transacted, stage.queue(transacted), "then");
        transacted.commit();
        MessageConsumer consumer = session.createConsumer(stage.queue(session));
        same("then", nextText(consumer));
        nothing(consumer);
    }

    public static void receivedMessagesGoWithTheCommit(Stage stage) throws Exception {
        Session session = stage.session();
        send(session, stage.queue(session), "1", "2", "3");
        Connection connection = stage.connect();
        Session transacted = connection.createSession(Session.SESSION_TRANSACTED);
        MessageConsumer consumer = transacted.createConsumer(stage.queue(transacted));
        same(List.of("1", "2"), nextTexts(consumer, 2));
        transacted.commit();
        connection.close();
        MessageConsumer after = session.createConsumer(stage.queue(session));
        same("3", nextText(after));
        nothing(after);
    }

    public static void receivedMessagesComeBackWithTheRollback(Stage stage) throws Exception {
        Session transacted = stage.session(Session.SESSION_TRANSACTED);
        Session session = stage.session();
        send(session, stage.queue(session), "1", "2", "3");
        MessageConsumer consumer = transacted.createConsumer(stage.queue(transacted));
        same(List.of("1", "2"), nextTexts(consumer, 2));
        transacted.rollback();
        Message first = next(consumer);
        same("1", first.getBody(String.class));
        check(first.getJMSRedelivered(), "it was delivered before");
        same(2, first.getIntProperty("JMSXDeliveryCount"));
        same(List.of("2", "3"), nextTexts(consumer, 2));
        transacted.commit();
        nothing(session.createConsumer(stage.queue(session)));
    }

    public static void receivingAndSendingAreOneTransaction(Stage stage) throws Exception {
        Session session = stage.session();
        send(session, stage.queue(session), "in");
        Session transacted = stage.session(Session.SESSION_TRANSACTED);
        MessageConsumer in = transacted.createConsumer(stage.queue(transacted));
        MessageConsumer out = session.createConsumer(session.createQueue(stage.name + ".out"));
        same("in", nextText(in));
        send(transacted, transacted.createQueue(stage.name + ".out"), "first try");
        transacted.rollback();
        nothing(out);
        same("in", nextText(in));
        send(transacted, transacted.createQueue(stage.name + ".out"), "second try");
        transacted.commit();
        same("second try", nextText(out));
        nothing(in);
    }

    public static void aTransactionReachesSeveralQueuesAndTopics(Stage stage) throws Exception {
        Session session = stage.session();
        Topic topic = session.createTopic(stage.name + ".topic");
        MessageConsumer subscriber = session.createConsumer(topic);
        MessageConsumer queue = session.createConsumer(stage.queue(session));
        Session transacted = stage.session(Session.SESSION_TRANSACTED);
        send(transacted, stage.queue(transacted), "q");
        send(transacted, topic, "t");
        nothing(queue);
        nothing(subscriber);
        transacted.commit();
        same("q", nextText(queue));
        same("t", nextText(subscriber));
    }

    public static void aSessionThatClosesRollsBack(Stage stage) throws Exception {
        Session session = stage.session();
        send(session, stage.queue(session), "in");
        Session transacted = stage.session(Session.SESSION_TRANSACTED);
        same("in", nextText(transacted.createConsumer(stage.queue(transacted))));
        send(transacted, stage.queue(transacted), "out");
        transacted.close();
        MessageConsumer consumer = session.createConsumer(stage.queue(session));
        same("in", nextText(consumer));
        nothing(consumer);
    }

    public static void manyTransactionsFollowEachOther(Stage stage) throws Exception {
        Session transacted = stage.session(Session.SESSION_TRANSACTED);
        MessageConsumer consumer = transacted.createConsumer(stage.queue(transacted));
        for (int i = 0; i < 50; i++) {
            send(transacted, stage.queue(transacted), "" + i);
            transacted.commit();
            same("" + i, nextText(consumer));
            transacted.commit();
        }
        nothing(consumer);
    }

    public static void aListenerInATransactionIsGivenTheMessageAgainAfterRollback(Stage stage) throws Exception {
        Session session = stage.session();
        Session transacted = stage.session(Session.SESSION_TRANSACTED);
        BlockingQueue<Integer> counts = new LinkedBlockingQueue<>();
        transacted.createConsumer(stage.queue(transacted)).setMessageListener(message -> {
            try {
                int count = message.getIntProperty("JMSXDeliveryCount");
                counts.add(count);
                if (count == 1) {
                    transacted.rollback();
                } else {
                    transacted.commit();
                }
            } catch (JMSException failed) {
                counts.add(-1);
            }
        });
        send(session, stage.queue(session), "1");
        same(1, counts.poll(Stage.SOON_MS, TimeUnit.MILLISECONDS));
        same(2, counts.poll(Stage.SOON_MS, TimeUnit.MILLISECONDS));
    }

    private TransactionCases() {}
}
