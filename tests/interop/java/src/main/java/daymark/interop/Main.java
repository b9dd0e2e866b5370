package daymark.interop;

import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.lang.reflect.Modifier;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

/**
 * Runs cases against a broker and prints one line for each: {@code ok NAME} or {@code FAILED NAME: why}.
 *
 * <p>{@code Main HOST:PORT STRICT_HOST:PORT [CASE...]}. The first broker makes queues and topics on first use, the
 * second knows only the queue {@code examples}. A case is a public static method of one of the classes below that
 * takes a {@link Stage}; without names all run. The exit code is 0 if all were ok.
 */
public final class Main {
    private static final List<Class<?>> SUBJECTS = List.of(
            MessageCases.class,
            AcknowledgeCases.class,
            ConsumerCases.class,
            ConnectionCases.class,
            BrowseAndSelectorCases.class,
            TemporaryCases.class,
            TopicCases.class,
            TransactionCases.class,
            DeliveryCases.class);
    private static final int AT_ONCE = 3;
    private static final long SECONDS_PER_CASE = 90;

    public static void main(String[] arguments) throws Exception {
        Map<String, Method> cases = cases();
        List<String> names = new ArrayList<>(List.of(arguments).subList(2, arguments.length));
        if (names.isEmpty()) {
            names.addAll(cases.keySet());
        }
        ExecutorService runners = Executors.newFixedThreadPool(AT_ONCE, Main::daemon);
        ExecutorService guards = Executors.newCachedThreadPool(Main::daemon);
        List<Future<Boolean>> results = new ArrayList<>();
        for (String name : names) {
            Method method = cases.get(name);
            results.add(runners.submit(() -> method == null
                    ? failed(name, "there is no such case")
                    : run(guards, method, new Stage(arguments[0], arguments[1], name))));
        }
        boolean ok = true;
        for (Future<Boolean> result : results) {
            ok &= result.get();
        }
        System.exit(ok ? 0 : 1);
    }

    private static Map<String, Method> cases() {
        Map<String, Method> cases = new LinkedHashMap<>();
        for (Class<?> subject : SUBJECTS) {
            for (Method method : subject.getDeclaredMethods()) {
                if (Modifier.isPublic(method.getModifiers())) {
                    cases.put(method.getName(), method);
                }
            }
        }
        return cases;
    }

    private static boolean run(ExecutorService guards, Method method, Stage stage) throws InterruptedException {
        long began = System.nanoTime();
        Future<Object> result = guards.submit(() -> method.invoke(null, stage));
        try {
            result.get(SECONDS_PER_CASE, TimeUnit.SECONDS);
        } catch (TimeoutException late) {
            result.cancel(true);
            return failed(method.getName(), "not done after " + SECONDS_PER_CASE + " s");
        } catch (ExecutionException thrown) {
            Throwable cause = thrown.getCause();
            if (cause instanceof InvocationTargetException) {
                cause = cause.getCause();
            }
            synchronized (System.err) {
                System.err.println("in " + method.getName() + ":");
                cause.printStackTrace();
            }
            return failed(method.getName(), cause.toString());
        } finally {
            stage.close();
        }
        long millis = TimeUnit.NANOSECONDS.toMillis(System.nanoTime() - began);
        return say("ok " + method.getName() + " (" + millis + " ms)", true);
    }

    private static boolean failed(String name, String why) {
        return say("FAILED " + name + ": " + why.replace('\n', ' '), false);
    }

    private static synchronized boolean say(String line, boolean result) {
        System.out.println(line);
        System.out.flush();
        return result;
    }

    private static Thread daemon(Runnable work) {
        Thread thread = new Thread(work);
        thread.setDaemon(true);
        return thread;
    }

    private Main() {}
}
