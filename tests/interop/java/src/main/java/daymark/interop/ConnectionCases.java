package daymark.interop;

import static daymark.interop.Stage.check;
import static daymark.interop.Stage.nextText;
import static daymark.interop.Stage.refused;
import static daymark.interop.Stage.same;
import static daymark.interop.Stage.send;

import jakarta.jms.Connection;
import jakarta.jms.InvalidClientIDException;
import jakarta.jms.InvalidDestinationException;
import jakarta.jms.JMSException;
import jakarta.jms.Session;
import java.util.concurrent.atomic.AtomicReference;

/** Entering, staying, and being refused. */
final class ConnectionCases {
    public static void saslAnonymousEnters(Stage stage) throws Exception {
        works(stage, stage.connect("amqp.saslMechanisms=ANONYMOUS"));
    }

    public static void saslPlainEnters(Stage stage) throws Exception {
        Connection connection = stage.factory("amqp.saslMechanisms=PLAIN").createConnection("user", "password");
        works(stage, stage.keep(connection));
    }

    public static void aClientWithoutSaslEnters(Stage stage) throws Exception {
        works(stage, stage.connect("amqp.saslLayer=false"));
    }

    public static void aMechanismThatIsNotOfferedIsRefused(Stage stage) throws Exception {
        refused(JMSException.class, () -> stage.connect("amqp.saslMechanisms=CRAM-MD5"));
    }

    public static void aClientIdIsUsedByOneConnectionAtATime(Stage stage) throws Exception {
        Connection first = stage.connect("jms.clientID=" + stage.name);
        refused(InvalidClientIDException.class, () -> stage.connect("jms.clientID=" + stage.name));
        works(stage, first);
        first.close();
        works(stage, stage.connect("jms.clientID=" + stage.name));
    }

    public static void anUnknownQueueIsRefusedAndTheSessionLives(Stage stage) throws Exception {
        Session session = stage.keep(stage.strictFactory().createConnection()).createSession();
        refused(InvalidDestinationException.class, () -> session.createConsumer(stage.queue(session)));
        refused(InvalidDestinationException.class, () -> session.createProducer(stage.queue(session)));
        refused(
                InvalidDestinationException.class,
                () -> session.createProducer(null).send(stage.queue(session), session.createMessage()));
        send(session, session.createQueue("examples"), "known");
        same("known", nextText(session.createConsumer(session.createQueue("examples"))));
    }

    public static void anImpossibleAddressIsRefusedAndTheSessionLives(Stage stage) throws Exception {
        Session session = stage.session();
        refused(JMSException.class, () -> session.createConsumer(session.createQueue("x".repeat(300))));
        refused(JMSException.class, () -> session.createProducer(session.createQueue("a\nb")));
        works(stage, stage.connect());
        send(session, stage.queue(session), "alive");
        same("alive", nextText(session.createConsumer(stage.queue(session))));
    }

    /** The client gives up after four seconds without a byte, and waits longer than that. */
    public static void anIdleConnectionIsKeptAlive(Stage stage) throws Exception {
        AtomicReference<JMSException> trouble = new AtomicReference<>();
        Connection connection = stage.connect("amqp.idleTimeout=4000");
        connection.setExceptionListener(trouble::set);
        // Of this one the broker wants to hear.
        Connection heard = stage.keep(stage.strictFactory().createConnection());
        heard.setExceptionListener(trouble::set);
        Thread.sleep(7_000);
        check(trouble.get() == null, "the connection failed: " + trouble.get());
        Session session = heard.createSession();
        session.createProducer(session.createQueue("examples")).close();
        works(stage, connection);
    }

    private static void works(Stage stage, Connection connection) throws Exception {
        Session session = connection.createSession();
        send(session, stage.queue(session), "works");
        same("works", nextText(session.createConsumer(stage.queue(session))));
        session.close();
    }

    private ConnectionCases() {}
}
