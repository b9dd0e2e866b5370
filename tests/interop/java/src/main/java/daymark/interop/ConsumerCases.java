package daymark.interop;

import static daymark.interop.Stage.check;
import static daymark.interop.Stage.next;
import static daymark.interop.Stage.nextText;
import static daymark.interop.Stage.nextTexts;
import static daymark.interop.Stage.nothing;
import static daymark.interop.Stage.same;
import static daymark.interop.Stage.send;

import jakarta.jms.CompletionListener;
import jakarta.jms.Connection;
import jakarta.jms.Message;
import jakarta.jms.MessageConsumer;
import jakarta.jms.MessageProducer;
import jakarta.jms.Session;
import java.util.ArrayList;
import java.util.List;
import java.util.TreeSet;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

/** Producers and consumers on queues. */
final class ConsumerCases {
    public static void aQueueKeepsTheOrderOfItsProducer(Stage stage) throws Exception {
        Session session = stage.session();
        MessageProducer producer = session.createProducer(stage.queue(session));
        List<String> texts = new ArrayList<>();
        for (int i = 0; i < 500; i++) {
            texts.add("" + i);
            producer.send(session.createTextMessage("" + i));
        }
        same(texts, nextTexts(session.createConsumer(stage.queue(session)), 500));
    }

    public static void aConsumerWithoutPrefetchPulls(Stage stage) throws Exception {
        Session session = stage.connect("jms.prefetchPolicy.all=0").createSession();
        MessageConsumer consumer = session.createConsumer(stage.queue(session));
        nothing(consumer);
        check(consumer.receive(50) == null, "nothing was sent");
        send(session, stage.queue(session), "1", "2", "3");
        same("1", nextText(consumer));
        same("2", ((jakarta.jms.TextMessage) consumer.receiveNoWait()).getText());
        // What one consumer does not pull, another gets.
        Session other = stage.connect("jms.prefetchPolicy.all=0").createSession();
        same("3", nextText(other.createConsumer(stage.queue(other))));
        nothing(consumer);
    }

    public static void competingConsumersShareAQueue(Stage stage) throws Exception {
        Session session = stage.session();
        List<MessageConsumer> consumers = new ArrayList<>();
        for (int i = 0; i < 3; i++) {
            Session receiving = stage.connect("jms.prefetchPolicy.all=1").createSession();
            consumers.add(receiving.createConsumer(stage.queue(receiving)));
        }
        TreeSet<String> sent = new TreeSet<>();
        for (int i = 0; i < 30; i++) {
            sent.add("" + i);
            send(session, stage.queue(session), "" + i);
        }
        TreeSet<String> received = new TreeSet<>();
        for (int i = 0; i < 10; i++) {
            for (MessageConsumer consumer : consumers) {
                Message message = consumer.receiveNoWait();
                if (message != null) {
                    check(received.add(message.getBody(String.class)), "received twice: " + message);
                }
            }
        }
        while (received.size() < 30) {
            check(received.add(nextText(consumers.get(0))), "received twice");
        }
        same(sent, received);
    }

    public static void whatAClosedConsumerHadPrefetchedGoesToTheNext(Stage stage) throws Exception {
        Session session = stage.session();
        send(session, stage.queue(session), "1", "2", "3");
        MessageConsumer first = session.createConsumer(stage.queue(session));
        same("1", nextText(first));
        first.close();
        Session other = stage.session();
        MessageConsumer second = other.createConsumer(stage.queue(other));
        same(List.of("2", "3"), nextTexts(second, 2));
        nothing(second);
    }

    public static void aStoppedConnectionReceivesNothingUntilItStartsAgain(Stage stage) throws Exception {
        Session session = stage.session();
        Connection connection = stage.connect();
        Session receiving = connection.createSession();
        MessageConsumer consumer = receiving.createConsumer(stage.queue(receiving));
        connection.stop();
        send(session, stage.queue(session), "1");
        check(consumer.receiveNoWait() == null, "the connection is stopped");
        connection.start();
        same("1", nextText(consumer));
    }

    public static void aProducerWithoutDestinationSendsAnywhere(Stage stage) throws Exception {
        Session session = stage.session();
        MessageProducer producer = session.createProducer(null);
        for (String suffix : List.of("a", "b", "c")) {
            producer.send(session.createQueue(stage.name + "." + suffix), session.createTextMessage(suffix));
        }
        for (String suffix : List.of("c", "a", "b")) {
            same(suffix, nextText(session.createConsumer(session.createQueue(stage.name + "." + suffix))));
        }
    }

    public static void asynchronousSendsAreCompletedInOrder(Stage stage) throws Exception {
        Session session = stage.session();
        MessageProducer producer = session.createProducer(stage.queue(session));
        BlockingQueue<Object> completed = new LinkedBlockingQueue<>();
        for (int i = 0; i < 50; i++) {
            producer.send(session.createTextMessage("" + i), new CompletionListener() {
                @Override
                public void onCompletion(Message message) {
                    try {
                        completed.add(message.getBody(String.class));
                    } catch (jakarta.jms.JMSException unreadable) {
                        completed.add(unreadable);
                    }
                }

                @Override
                public void onException(Message message, Exception exception) {
                    completed.add(exception);
                }
            });
        }
        for (int i = 0; i < 50; i++) {
            same("" + i, completed.poll(Stage.SOON_MS, TimeUnit.MILLISECONDS));
        }
    }

    public static void fiftySessionsShareOneConnection(Stage stage) throws Exception {
        Connection connection = stage.connect();
        List<Session> sessions = new ArrayList<>();
        List<MessageConsumer> consumers = new ArrayList<>();
        for (int i = 0; i < 50; i++) {
            Session session = connection.createSession();
            sessions.add(session);
            consumers.add(session.createConsumer(session.createQueue(stage.name + "." + i)));
        }
        for (int i = 0; i < 50; i++) {
            Session session = sessions.get(49 - i);
            send(session, session.createQueue(stage.name + "." + i), "to " + i);
        }
        for (int i = 0; i < 50; i++) {
            same("to " + i, nextText(consumers.get(i)));
        }
        for (Session session : sessions) {
            session.close();
        }
        Session again = connection.createSession();
        send(again, stage.queue(again), "again");
        same("again", ((jakarta.jms.TextMessage) next(again.createConsumer(stage.queue(again)))).getText());
    }

    private ConsumerCases() {}
}
