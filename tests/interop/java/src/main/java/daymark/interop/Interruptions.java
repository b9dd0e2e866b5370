package daymark.interop;

import jakarta.jms.MessageConsumer;
import jakarta.jms.MessageProducer;
import jakarta.jms.Session;
import java.net.URI;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.qpid.jms.JmsConnectionListener;
import org.apache.qpid.jms.message.JmsInboundMessageDispatch;

/** Counts how often a connection was interrupted. */
record Interruptions(AtomicInteger count) implements JmsConnectionListener {
    @Override
    public void onConnectionInterrupted(URI broker) {
        count.incrementAndGet();
    }

    @Override
    public void onConnectionEstablished(URI broker) {}

    @Override
    public void onConnectionRestored(URI broker) {}

    @Override
    public void onConnectionFailure(Throwable error) {}

    @Override
    public void onInboundMessage(JmsInboundMessageDispatch message) {}

    @Override
    public void onSessionClosed(Session session, Throwable error) {}

    @Override
    public void onConsumerClosed(MessageConsumer consumer, Throwable error) {}

    @Override
    public void onProducerClosed(MessageProducer producer, Throwable error) {}
}
