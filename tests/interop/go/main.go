// go-amqp against a broker: one line for each case, `ok NAME (MS ms)` or `FAILED NAME: why`.
//
//	interop WILLING STRICT CASE...
//
// WILLING and STRICT are HOST:PORT: the first makes queues on first use, the second knows only `examples`.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"time"

	"github.com/Azure/go-amqp"
)

type stage struct {
	willing, strict, name string
	ctx                   context.Context
}

var cases = map[string]func(*stage) error{
	"bodiesArriveAsSent":                           bodiesArriveAsSent,
	"everyOutcomeDoesWhatItSays":                   everyOutcomeDoesWhatItSays,
	"aReceiverThatSettlesSecondIsConfirmed":        aReceiverThatSettlesSecondIsConfirmed,
	"presettledMessagesArrive":                     presettledMessagesArrive,
	"messagesKeepTheirOrder":                       messagesKeepTheirOrder,
	"aMessageOf16MebibytesArrives":                 aMessageOf16MebibytesArrives,
	"thirtySessionsShareOneConnection":             thirtySessionsShareOneConnection,
	"saslPlainEnters":                              saslPlainEnters,
	"saslAnonymousEnters":                          saslAnonymousEnters,
	"aClientWithoutSaslEnters":                     aClientWithoutSaslEnters,
	"anIdleConnectionIsKeptAlive":                  anIdleConnectionIsKeptAlive,
	"anUnknownQueueIsRefusedAndTheConnectionLives": anUnknownQueueIsRefusedAndTheConnectionLives,
	"aSelectorTakesWhatItChoosesAndLeavesTheRest":  aSelectorTakesWhatItChoosesAndLeavesTheRest,
	"aRequestIsAnsweredOverATemporaryQueue":        aRequestIsAnsweredOverATemporaryQueue,
	"everySubscriberOfATopicGetsItsCopy":           everySubscriberOfATopicGetsItsCopy,
	"aSharedSubscriptionGivesEachMessageToOne":     aSharedSubscriptionGivesEachMessageToOne,
	"aDurableSubscriptionKeepsWhatCameMeanwhile":   aDurableSubscriptionKeepsWhatCameMeanwhile,
}

func main() {
	code := 0
	for _, name := range os.Args[3:] {
		began := time.Now()
		if err := run(os.Args[1], os.Args[2], name); err != nil {
			fmt.Printf("FAILED %s: %v\n", name, err)
			code = 1
			continue
		}
		fmt.Printf("ok %s (%d ms)\n", name, time.Since(began).Milliseconds())
	}
	os.Exit(code)
}

func run(willing, strict, name string) error {
	body, known := cases[name]
	if !known {
		return errors.New("there is no such case")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	return body(&stage{willing, strict, name, ctx})
}

func (s *stage) dial(address string, options *amqp.ConnOptions) (*amqp.Conn, error) {
	return amqp.Dial(s.ctx, "amqp://"+address, options)
}

// A connection and a session that end with the case.
func (s *stage) session(address string, options *amqp.ConnOptions) (*amqp.Session, func(), error) {
	conn, err := s.dial(address, options)
	if err != nil {
		return nil, nil, err
	}
	session, err := conn.NewSession(s.ctx, nil)
	return session, func() { conn.Close() }, err
}

func (s *stage) send(session *amqp.Session, to string, messages ...*amqp.Message) error {
	sender, err := session.NewSender(s.ctx, to, nil)
	if err != nil {
		return err
	}
	for _, message := range messages {
		if err := sender.Send(s.ctx, message, nil); err != nil {
			return err
		}
	}
	return sender.Close(s.ctx)
}

func text(body string) *amqp.Message { return &amqp.Message{Value: body} }

func (s *stage) works(session *amqp.Session, queue string) error {
	if err := s.send(session, queue, text("works")); err != nil {
		return err
	}
	receiver, err := session.NewReceiver(s.ctx, queue, nil)
	if err != nil {
		return err
	}
	message, err := receiver.Receive(s.ctx, nil)
	if err != nil {
		return err
	}
	if message.Value != "works" {
		return fmt.Errorf("received %v", message.Value)
	}
	return receiver.AcceptMessage(s.ctx, message)
}

func bodiesArriveAsSent(s *stage) error {
	session, end, err := s.session(s.willing, nil)
	if err != nil {
		return err
	}
	defer end()
	values := []any{"text", int64(7), true, 1.5, []byte{1, 2}, uint8(3), []any{"a", int64(1)}}
	for _, value := range values {
		subject := "subject"
		sent := &amqp.Message{
			Header:                &amqp.MessageHeader{Durable: true, Priority: 7},
			Properties:            &amqp.MessageProperties{Subject: &subject, MessageID: "id"},
			ApplicationProperties: map[string]any{"a": int32(1)},
			Value:                 value,
		}
		if err := s.send(session, s.name, sent); err != nil {
			return err
		}
	}
	receiver, err := session.NewReceiver(s.ctx, s.name, nil)
	if err != nil {
		return err
	}
	for _, value := range values {
		got, err := receiver.Receive(s.ctx, nil)
		if err != nil {
			return err
		}
		if !reflect.DeepEqual(got.Value, value) || got.Header.Priority != 7 || *got.Properties.Subject != "subject" ||
			got.ApplicationProperties["a"] != int32(1) {
			return fmt.Errorf("%v arrived as %v, %+v", value, got.Value, got)
		}
		if err := receiver.AcceptMessage(s.ctx, got); err != nil {
			return err
		}
	}
	return nil
}

func everyOutcomeDoesWhatItSays(s *stage) error {
	session, end, err := s.session(s.willing, nil)
	if err != nil {
		return err
	}
	defer end()
	if err := s.send(session, s.name, text("1"), text("2"), text("3"), text("4")); err != nil {
		return err
	}
	receiver, err := session.NewReceiver(s.ctx, s.name, &amqp.ReceiverOptions{Credit: 1})
	if err != nil {
		return err
	}
	steps := []struct {
		body  string
		count uint32
		then  func(*amqp.Message) error
	}{
		{"1", 0, func(m *amqp.Message) error { return receiver.AcceptMessage(s.ctx, m) }},
		{"2", 0, func(m *amqp.Message) error { return receiver.RejectMessage(s.ctx, m, nil) }},
		{"3", 0, func(m *amqp.Message) error { return receiver.ReleaseMessage(s.ctx, m) }},
		{"3", 0, func(m *amqp.Message) error {
			return receiver.ModifyMessage(s.ctx, m, &amqp.ModifyMessageOptions{DeliveryFailed: true})
		}},
		{"3", 1, func(m *amqp.Message) error { return receiver.AcceptMessage(s.ctx, m) }},
		{"4", 0, func(m *amqp.Message) error { return receiver.AcceptMessage(s.ctx, m) }},
	}
	for _, step := range steps {
		got, err := receiver.Receive(s.ctx, nil)
		if err != nil {
			return err
		}
		var count uint32
		if got.Header != nil {
			count = got.Header.DeliveryCount
		}
		if got.Value != step.body || count != step.count {
			return fmt.Errorf("expected %s after %d, not %v after %d", step.body, step.count, got.Value, count)
		}
		if err := step.then(got); err != nil {
			return err
		}
	}
	return nil
}

func aReceiverThatSettlesSecondIsConfirmed(s *stage) error {
	session, end, err := s.session(s.willing, nil)
	if err != nil {
		return err
	}
	defer end()
	if err := s.send(session, s.name, text("1"), text("2")); err != nil {
		return err
	}
	options := &amqp.ReceiverOptions{SettlementMode: amqp.ReceiverSettleModeSecond.Ptr()}
	receiver, err := session.NewReceiver(s.ctx, s.name, options)
	if err != nil {
		return err
	}
	for _, body := range []string{"1", "2"} {
		got, err := receiver.Receive(s.ctx, nil)
		if err != nil {
			return err
		}
		if got.Value != body {
			return fmt.Errorf("received %v", got.Value)
		}
		// Returns when the broker has settled.
		if err := receiver.AcceptMessage(s.ctx, got); err != nil {
			return err
		}
	}
	return nil
}

func presettledMessagesArrive(s *stage) error {
	session, end, err := s.session(s.willing, nil)
	if err != nil {
		return err
	}
	defer end()
	options := &amqp.SenderOptions{SettlementMode: amqp.SenderSettleModeSettled.Ptr()}
	sender, err := session.NewSender(s.ctx, s.name, options)
	if err != nil {
		return err
	}
	if err := sender.Send(s.ctx, text("once"), nil); err != nil {
		return err
	}
	receiver, err := session.NewReceiver(s.ctx, s.name, nil)
	if err != nil {
		return err
	}
	got, err := receiver.Receive(s.ctx, nil)
	if err != nil {
		return err
	}
	if got.Value != "once" {
		return fmt.Errorf("received %v", got.Value)
	}
	return receiver.AcceptMessage(s.ctx, got)
}

func messagesKeepTheirOrder(s *stage) error {
	session, end, err := s.session(s.willing, nil)
	if err != nil {
		return err
	}
	defer end()
	const count = 500
	sent := make(chan error, 1)
	go func() {
		sender, err := session.NewSender(s.ctx, s.name, nil)
		for i := int64(0); err == nil && i < count; i++ {
			err = sender.Send(s.ctx, &amqp.Message{Value: i}, nil)
		}
		sent <- err
	}()
	receiver, err := session.NewReceiver(s.ctx, s.name, &amqp.ReceiverOptions{Credit: 50})
	if err != nil {
		return err
	}
	for i := int64(0); i < count; i++ {
		got, err := receiver.Receive(s.ctx, nil)
		if err != nil {
			return err
		}
		if got.Value != i {
			return fmt.Errorf("received %v, not %d", got.Value, i)
		}
		if err := receiver.AcceptMessage(s.ctx, got); err != nil {
			return err
		}
	}
	return <-sent
}

func aMessageOf16MebibytesArrives(s *stage) error {
	session, end, err := s.session(s.willing, &amqp.ConnOptions{MaxFrameSize: 16384})
	if err != nil {
		return err
	}
	defer end()
	body := bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
	if err := s.send(session, s.name, amqp.NewMessage(body)); err != nil {
		return err
	}
	receiver, err := session.NewReceiver(s.ctx, s.name, nil)
	if err != nil {
		return err
	}
	got, err := receiver.Receive(s.ctx, nil)
	if err != nil {
		return err
	}
	if !bytes.Equal(got.GetData(), body) {
		return errors.New("the body differs")
	}
	return receiver.AcceptMessage(s.ctx, got)
}

func thirtySessionsShareOneConnection(s *stage) error {
	conn, err := s.dial(s.willing, nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	for i := 0; i < 30; i++ {
		session, err := conn.NewSession(s.ctx, nil)
		if err != nil {
			return err
		}
		if err := s.works(session, fmt.Sprintf("%s.%d", s.name, i)); err != nil {
			return err
		}
	}
	return nil
}

func (s *stage) enters(options *amqp.ConnOptions) error {
	session, end, err := s.session(s.willing, options)
	if err != nil {
		return err
	}
	defer end()
	return s.works(session, s.name)
}

func saslPlainEnters(s *stage) error {
	return s.enters(&amqp.ConnOptions{SASLType: amqp.SASLTypePlain("user", "password")})
}

func saslAnonymousEnters(s *stage) error {
	return s.enters(&amqp.ConnOptions{SASLType: amqp.SASLTypeAnonymous()})
}

func aClientWithoutSaslEnters(s *stage) error { return s.enters(nil) }

func anIdleConnectionIsKeptAlive(s *stage) error {
	session, end, err := s.session(s.willing, &amqp.ConnOptions{IdleTimeout: 4 * time.Second})
	if err != nil {
		return err
	}
	defer end()
	// Of this one the broker wants to hear.
	heard, leave, err := s.session(s.strict, nil)
	if err != nil {
		return err
	}
	defer leave()
	time.Sleep(7 * time.Second)
	if _, err := heard.NewSender(s.ctx, "examples", nil); err != nil {
		return err
	}
	return s.works(session, s.name)
}

func anUnknownQueueIsRefusedAndTheConnectionLives(s *stage) error {
	session, end, err := s.session(s.strict, nil)
	if err != nil {
		return err
	}
	defer end()
	_, received := session.NewReceiver(s.ctx, "unknown", nil)
	_, sent := session.NewSender(s.ctx, "unknown", nil)
	for _, refused := range []error{received, sent} {
		var link *amqp.Error
		if !errors.As(refused, &link) || link.Condition != amqp.ErrCondNotFound {
			return fmt.Errorf("refused with %v", refused)
		}
	}
	return s.works(session, "examples")
}

// Receives and accepts so many messages.
func (s *stage) take(receiver *amqp.Receiver, count int) ([]any, error) {
	var values []any
	for len(values) < count {
		message, err := receiver.Receive(s.ctx, nil)
		if err != nil {
			return values, err
		}
		values = append(values, message.Value)
		if err := receiver.AcceptMessage(s.ctx, message); err != nil {
			return values, err
		}
	}
	return values, nil
}

func (s *stage) expect(receiver *amqp.Receiver, wanted ...any) error {
	values, err := s.take(receiver, len(wanted))
	if err == nil && !reflect.DeepEqual(values, wanted) {
		err = fmt.Errorf("received %v, not %v", values, wanted)
	}
	return err
}

func aSelectorTakesWhatItChoosesAndLeavesTheRest(s *stage) error {
	session, end, err := s.session(s.willing, nil)
	if err != nil {
		return err
	}
	defer end()
	of := func(body, colour string) *amqp.Message {
		return &amqp.Message{Value: body, ApplicationProperties: map[string]any{"colour": colour}}
	}
	if err := s.send(session, s.name, of("0", "red"), of("1", "blue"), of("2", "red")); err != nil {
		return err
	}
	red := []amqp.LinkFilter{amqp.NewSelectorFilter("colour = 'red'")}
	chosen, err := session.NewReceiver(s.ctx, s.name, &amqp.ReceiverOptions{Filters: red})
	if err != nil {
		return err
	}
	if err := s.expect(chosen, "0", "2"); err != nil {
		return err
	}
	rest, err := session.NewReceiver(s.ctx, s.name, nil)
	if err != nil {
		return err
	}
	return s.expect(rest, "1")
}

func aRequestIsAnsweredOverATemporaryQueue(s *stage) error {
	session, end, err := s.session(s.willing, nil)
	if err != nil {
		return err
	}
	defer end()
	replies, err := session.NewReceiver(s.ctx, "", &amqp.ReceiverOptions{DynamicAddress: true})
	if err != nil {
		return err
	}
	address := replies.Address()
	question := &amqp.Message{Value: "question", Properties: &amqp.MessageProperties{ReplyTo: &address}}
	if err := s.send(session, s.name, question); err != nil {
		return err
	}
	answering, leave, err := s.session(s.willing, nil)
	if err != nil {
		return err
	}
	defer leave()
	requests, err := answering.NewReceiver(s.ctx, s.name, nil)
	if err != nil {
		return err
	}
	request, err := requests.Receive(s.ctx, nil)
	if err != nil {
		return err
	}
	if err := s.send(answering, *request.Properties.ReplyTo, text("answer")); err != nil {
		return err
	}
	return s.expect(replies, "answer")
}

func everySubscriberOfATopicGetsItsCopy(s *stage) error {
	return s.publish([]string{"topic"}, func(receivers []*amqp.Receiver) error {
		for _, receiver := range receivers {
			if err := s.expect(receiver, "a", "b"); err != nil {
				return err
			}
		}
		return nil
	})
}

func aSharedSubscriptionGivesEachMessageToOne(s *stage) error {
	return s.publish([]string{"topic", "shared"}, func(receivers []*amqp.Receiver) error {
		// Each has credit for one message, so each is given one.
		got := map[any]int{}
		for _, receiver := range receivers {
			values, err := s.take(receiver, 1)
			if err != nil {
				return err
			}
			got[values[0]]++
		}
		if wanted := map[any]int{"a": 1, "b": 1}; !reflect.DeepEqual(got, wanted) {
			return fmt.Errorf("received %v, not %v", got, wanted)
		}
		return nil
	})
}

func aDurableSubscriptionKeepsWhatCameMeanwhile(s *stage) error {
	subscribe := func() (*amqp.Receiver, func(), error) {
		conn, err := s.dial(s.willing, &amqp.ConnOptions{ContainerID: "go-durable"})
		if err != nil {
			return nil, nil, err
		}
		session, err := conn.NewSession(s.ctx, nil)
		if err != nil {
			return nil, nil, err
		}
		receiver, err := session.NewReceiver(s.ctx, s.name, &amqp.ReceiverOptions{
			Name:               "kept",
			Durability:         amqp.DurabilityUnsettledState,
			SourceDurability:   amqp.DurabilityUnsettledState,
			SourceExpiryPolicy: amqp.ExpiryPolicyNever,
			SourceCapabilities: []string{"topic"},
		})
		return receiver, func() { conn.Close() }, err
	}
	_, leave, err := subscribe()
	if err != nil {
		return err
	}
	leave()
	session, end, err := s.session(s.willing, nil)
	if err != nil {
		return err
	}
	defer end()
	sender, err := session.NewSender(s.ctx, s.name, &amqp.SenderOptions{TargetCapabilities: []string{"topic"}})
	if err != nil {
		return err
	}
	for _, body := range []string{"a", "b"} {
		message := &amqp.Message{Header: &amqp.MessageHeader{Durable: true}, Value: body}
		if err := sender.Send(s.ctx, message, nil); err != nil {
			return err
		}
	}
	receiver, leave, err := subscribe()
	if err != nil {
		return err
	}
	defer leave()
	if err := s.expect(receiver, "a", "b"); err != nil {
		return err
	}
	// Closing the link ends the subscription.
	return receiver.Close(s.ctx)
}

// Publishes `a` and `b` to two receivers with these capabilities, whose links are named as those of one subscription.
func (s *stage) publish(capabilities []string, check func([]*amqp.Receiver) error) error {
	session, end, err := s.session(s.willing, nil)
	if err != nil {
		return err
	}
	defer end()
	var receivers []*amqp.Receiver
	for _, name := range []string{"both|1", "both|2"} {
		options := &amqp.ReceiverOptions{Name: name, SourceCapabilities: capabilities, Credit: 1}
		receiver, err := session.NewReceiver(s.ctx, s.name, options)
		if err != nil {
			return err
		}
		receivers = append(receivers, receiver)
	}
	sender, err := session.NewSender(s.ctx, s.name, &amqp.SenderOptions{TargetCapabilities: []string{"topic"}})
	if err != nil {
		return err
	}
	for _, body := range []string{"a", "b"} {
		if err := sender.Send(s.ctx, text(body), nil); err != nil {
			return err
		}
	}
	return check(receivers)
}
