package daymark.interop;

import static daymark.interop.Stage.check;
import static daymark.interop.Stage.nextText;
import static daymark.interop.Stage.nextTexts;
import static daymark.interop.Stage.nothing;
import static daymark.interop.Stage.refused;
import static daymark.interop.Stage.same;
import static daymark.interop.Stage.send;

import jakarta.jms.Connection;
import jakarta.jms.InvalidDestinationException;
import jakarta.jms.JMSException;
import jakarta.jms.Message;
import jakarta.jms.MessageConsumer;
import jakarta.jms.MessageProducer;
import jakarta.jms.Session;
import jakarta.jms.TextMessage;
import jakarta.jms.Topic;
import java.util.List;
import java.util.TreeSet;

/** Topics: plain, durable and shared subscriptions. */
final class TopicCases {
    public static void everySubscriberGetsEveryMessage(Stage stage) throws Exception {
        Session session = stage.session();
        Topic topic = session.createTopic(stage.name);
        send(session, topic, "before anybody listens");
        Session other = stage.session();
        MessageConsumer one = session.createConsumer(topic);
        MessageConsumer two = other.createConsumer(topic);
        send(session, topic, "1", "2", "3");
        same(List.of("1", "2", "3"), nextTexts(one, 3));
        same(List.of("1", "2", "3"), nextTexts(two, 3));
        two.close();
        send(session, topic, "4");
        same("4", nextText(one));
        nothing(one);
    }

    public static void aSubscriberChoosesWithASelector(Stage stage) throws Exception {
        Session session = stage.session();
        Topic topic = session.createTopic(stage.name);
        MessageConsumer red = session.createConsumer(topic, "colour = 'red'");
        MessageConsumer all = session.createConsumer(topic);
        MessageProducer producer = session.createProducer(topic);
        for (String colour : List.of("red", "green", "red")) {
            Message message = session.createTextMessage(colour);
            message.setStringProperty("colour", colour);
            producer.send(message);
        }
        same(List.of("red", "green", "red"), nextTexts(all, 3));
        same(List.of("red", "red"), nextTexts(red, 2));
        nothing(red);
    }

    public static void noLocalLeavesOutWhatItsOwnConnectionSent(Stage stage) throws Exception {
        Session session = stage.session();
        Topic topic = session.createTopic(stage.name);
        MessageConsumer others = session.createConsumer(topic, null, true);
        Session other = stage.session();
        send(session, topic, "mine");
        send(other, topic, "theirs");
        same("theirs", nextText(others));
        nothing(others);
    }

    public static void aDurableSubscriptionKeepsWhatCameMeanwhile(Stage stage) throws Exception {
        Session session = stage.session();
        Topic topic = session.createTopic(stage.name);
        String options = "jms.clientID=" + stage.name;
        Connection first = stage.connect(options);
        Session subscribing = first.createSession();
        MessageConsumer consumer = subscribing.createDurableSubscriber(topic, "sub");
        send(session, topic, "1");
        same("1", nextText(consumer));
        first.close();
        send(session, topic, "2", "3");
        Connection second = stage.connect(options);
        Session back = second.createSession();
        MessageConsumer again = back.createDurableSubscriber(topic, "sub");
        same(List.of("2", "3"), nextTexts(again, 2));
        nothing(again);
        again.close();
        back.unsubscribe("sub");
        send(session, topic, "4");
        MessageConsumer fresh = back.createDurableSubscriber(topic, "sub");
        nothing(fresh);
        fresh.close();
        back.unsubscribe("sub");
    }

    public static void unsubscribeIsRefusedForWhatIsNotThereOrInUse(Stage stage) throws Exception {
        Connection connection = stage.connect("jms.clientID=" + stage.name);
        Session session = connection.createSession();
        refused(InvalidDestinationException.class, () -> session.unsubscribe("unknown"));
        MessageConsumer consumer = session.createDurableSubscriber(session.createTopic(stage.name), "sub");
        refused(JMSException.class, () -> session.unsubscribe("sub"));
        consumer.close();
        session.unsubscribe("sub");
        refused(InvalidDestinationException.class, () -> session.unsubscribe("sub"));
    }

    public static void aDurableSubscriptionWithAnotherSelectorStartsAgain(Stage stage) throws Exception {
        Connection connection = stage.connect("jms.clientID=" + stage.name);
        Session session = connection.createSession();
        Topic topic = session.createTopic(stage.name);
        session.createDurableSubscriber(topic, "sub", "number = 1", false).close();
        numbered(session, topic, 1);
        MessageConsumer other = session.createDurableSubscriber(topic, "sub", "number = 2", false);
        nothing(other);
        numbered(session, topic, 1);
        numbered(session, topic, 2);
        same("2", nextText(other));
        nothing(other);
        other.close();
        session.unsubscribe("sub");
    }

    public static void aSharedSubscriptionSharesItsMessages(Stage stage) throws Exception {
        Session one = stage.session();
        Session two = stage.session();
        shared(stage, one, one.createSharedConsumer(one.createTopic(stage.name), "sub"), two.createSharedConsumer(two.createTopic(stage.name), "sub"));
    }

    public static void oneConnectionSharesASubscriptionWithItself(Stage stage) throws Exception {
        Connection connection = stage.connect("jms.clientID=" + stage.name);
        Session one = connection.createSession();
        Session two = connection.createSession();
        shared(stage, one, one.createSharedConsumer(one.createTopic(stage.name), "sub"), two.createSharedConsumer(two.createTopic(stage.name), "sub"));
    }

    public static void aSharedDurableSubscriptionSharesAndKeeps(Stage stage) throws Exception {
        Connection connection = stage.connect();
        Session one = connection.createSession();
        Session two = stage.session();
        Topic topic = one.createTopic(stage.name);
        MessageConsumer first = one.createSharedDurableConsumer(topic, "sub" + stage.name);
        MessageConsumer second = two.createSharedDurableConsumer(topic, "sub" + stage.name);
        shared(stage, two, first, second);
        first.close();
        second.close();
        send(two, topic, "meanwhile");
        MessageConsumer third = two.createSharedDurableConsumer(topic, "sub" + stage.name);
        same("meanwhile", nextText(third));
        third.close();
        two.unsubscribe("sub" + stage.name);
        refused(InvalidDestinationException.class, () -> two.unsubscribe("sub" + stage.name));
    }

    public static void aSharedDurableSubscriptionOfAClientIdIsItsOwn(Stage stage) throws Exception {
        Connection connection = stage.connect("jms.clientID=" + stage.name);
        Session session = connection.createSession();
        Topic topic = session.createTopic(stage.name);
        MessageConsumer first = session.createSharedDurableConsumer(topic, "sub");
        MessageConsumer second = session.createSharedDurableConsumer(topic, "sub");
        Session stranger = stage.session();
        MessageConsumer global = stranger.createSharedDurableConsumer(topic, "sub");
        send(session, topic, "1");
        same("1", nextText(global));
        Message got = first.receiveNoWait();
        if (got == null) {
            got = Stage.next(second);
        }
        same("1", got.getBody(String.class));
        first.close();
        second.close();
        global.close();
        session.unsubscribe("sub");
        stranger.unsubscribe("sub");
    }

    /** Ten messages reach the two consumers together, each once. */
    private static void shared(Stage stage, Session session, MessageConsumer one, MessageConsumer two)
            throws Exception {
        Topic topic = session.createTopic(stage.name);
        TreeSet<String> sent = new TreeSet<>();
        for (int i = 0; i < 10; i++) {
            sent.add("" + i);
            send(session, topic, "" + i);
        }
        TreeSet<String> received = new TreeSet<>();
        Stage.eventually("all were received", () -> {
            for (MessageConsumer consumer : List.of(one, two)) {
                TextMessage message = (TextMessage) consumer.receiveNoWait();
                check(message == null || received.add(message.getText()), "received twice: " + message);
            }
            return received.size() == 10;
        });
        same(sent, received);
        nothing(one);
        nothing(two);
    }

    private static void numbered(Session session, Topic topic, int number) throws Exception {
        Message message = session.createTextMessage("" + number);
        message.setIntProperty("number", number);
        session.createProducer(topic).send(message);
    }

    private TopicCases() {}
}
