package daymark.interop;

import static daymark.interop.Stage.next;
import static daymark.interop.Stage.nextText;
import static daymark.interop.Stage.refused;
import static daymark.interop.Stage.same;
import static daymark.interop.Stage.send;

import jakarta.jms.Connection;
import jakarta.jms.JMSException;
import jakarta.jms.Message;
import jakarta.jms.MessageConsumer;
import jakarta.jms.Session;
import jakarta.jms.TemporaryQueue;
import jakarta.jms.TemporaryTopic;
import jakarta.jms.TextMessage;

/** Destinations that live as long as their connection. */
final class TemporaryCases {
    public static void aRequestIsAnsweredThroughATemporaryQueue(Stage stage) throws Exception {
        Session client = stage.session();
        Session server = stage.session();
        MessageConsumer requests = server.createConsumer(stage.queue(server));
        TemporaryQueue replies = client.createTemporaryQueue();
        MessageConsumer answers = client.createConsumer(replies);
        for (int i = 0; i < 10; i++) {
            TextMessage request = client.createTextMessage("ask " + i);
            request.setJMSReplyTo(replies);
            client.createProducer(stage.queue(client)).send(request);
            Message asked = next(requests);
            TextMessage answer = server.createTextMessage("answer " + i);
            answer.setJMSCorrelationID(asked.getJMSMessageID());
            server.createProducer(asked.getJMSReplyTo()).send(answer);
            Message answered = next(answers);
            same("answer " + i, answered.getBody(String.class));
            same(request.getJMSMessageID(), answered.getJMSCorrelationID());
        }
    }

    public static void aTemporaryTopicReachesItsSubscribers(Stage stage) throws Exception {
        Session session = stage.session();
        TemporaryTopic topic = session.createTemporaryTopic();
        MessageConsumer first = session.createConsumer(topic);
        MessageConsumer second = session.createConsumer(topic);
        Session other = stage.session();
        send(other, topic, "news");
        same("news", nextText(first));
        same("news", nextText(second));
    }

    public static void temporaryQueuesHaveNamesOfTheirOwn(Stage stage) throws Exception {
        Session session = stage.session();
        TemporaryQueue one = session.createTemporaryQueue();
        TemporaryQueue two = session.createTemporaryQueue();
        Stage.check(!one.getQueueName().equals(two.getQueueName()), "two temporary queues of one name");
        send(session, two, "two");
        send(session, one, "one");
        same("one", nextText(session.createConsumer(one)));
        same("two", nextText(session.createConsumer(two)));
    }

    public static void aDeletedTemporaryQueueIsGone(Stage stage) throws Exception {
        Connection connection = stage.connect();
        Session session = connection.createSession();
        TemporaryQueue queue = session.createTemporaryQueue();
        Session other = stage.session();
        send(other, queue, "1");
        queue.delete();
        String name = queue.getQueueName();
        Session strict = stage.keep(stage.strictFactory().createConnection()).createSession();
        refused(JMSException.class, () -> strict.createProducer(strict.createQueue(name)));
        refused(JMSException.class, () -> session.createConsumer(queue));
    }

    public static void aTemporaryQueueGoesWithItsConnection(Stage stage) throws Exception {
        Connection connection = stage.keep(stage.strictFactory().createConnection());
        TemporaryQueue queue = connection.createSession().createTemporaryQueue();
        Session other = stage.keep(stage.strictFactory().createConnection()).createSession();
        send(other, queue, "while it is there");
        connection.close();
        Stage.eventually("the queue is gone", () -> {
            try {
                send(other, queue, "too late");
                return false;
            } catch (JMSException gone) {
                return true;
            }
        });
    }

    private TemporaryCases() {}
}
