import java.util.ArrayList;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Random;
import javax.naming.CompositeName;
import javax.naming.InvalidNameException;

/**
 * Writes what {@link CompositeName} makes of many texts, one JSON object a line:
 * {@code {"text": …, "components": […], "printed": …}}, or {@code {"text": …, "invalid": true}}.
 *
 * <p>Run it with {@code java tests/vectors/CompositeNames.java > tests/data/composite-names.jsonl}.
 * It always writes the same lines.
 */
public final class CompositeNames {
    private static final String[] WRITTEN = {
        "", "/", "//", "///", "x", "a/b/c", "/a", "a/", "/a/", "//a", "a//", "x//y", "a\\/b", "\"a/b\"/c", "'a/b'/c",
        "\"it's\"", "'say \"hi\"'", "\"a\\\"b\"", "'a\\'b'", "a\\b", "a\\\\", "a\\\\b", "a\\\\/b", "\\\"a", "\\'a",
        "it's", "a\"b", "a\"b\"", "\"\"", "''", "\"\"/\"\"", "\"a", "'a", "\"a\"b", "'a'b", "a\\", "a/\\", "\\", "\\/",
        "\\\\", "\"a\\\\\"", "\"a\\b\"", "'\"'", "\"'\"", "a/'b/c'/d", "\"a/b\\\"\"", "a b", " a", "a ", "cn=x,o=y",
        "comp/env/jms/QueueConnectionFactory", "java:comp/env", "é/ü", "名/前", "\"/\"", "'/'/\"/\"", "\\/\\/", "a\\'b",
        "a\\\"b", "'a\\", "\"\\\"", "\"a\\/b\"", "x\\y/z", "x\\/y\\/z/w",
    };
    private static final String LETTERS = "ab/\\\"'/\\ é";

    private CompositeNames() {}

    public static void main(String[] arguments) {
        LinkedHashSet<String> texts = new LinkedHashSet<>(List.of(WRITTEN));
        for (String letter : LETTERS.split("")) {
            for (String next : LETTERS.split("")) {
                texts.add(letter + next);
            }
        }
        Random random = new Random(9736);
        while (texts.size() < 900) {
            StringBuilder text = new StringBuilder();
            for (int length = 3 + random.nextInt(8); length > 0; length--) {
                text.append(LETTERS.charAt(random.nextInt(LETTERS.length())));
            }
            texts.add(text.toString());
        }
        texts.forEach(text -> System.out.println(line(text)));
    }

    private static String line(String text) {
        try {
            CompositeName name = new CompositeName(text);
            List<String> components = new ArrayList<>();
            name.getAll().asIterator().forEachRemaining(component -> components.add(json(component)));
            return "{\"text\": " + json(text) + ", \"components\": [" + String.join(", ", components)
                    + "], \"printed\": " + json(name.toString()) + "}";
        } catch (InvalidNameException refused) {
            return "{\"text\": " + json(text) + ", \"invalid\": true}";
        }
    }

    private static String json(String text) {
        StringBuilder json = new StringBuilder("\"");
        for (char c : text.toCharArray()) {
            if (c == '"' || c == '\\') {
                json.append('\\').append(c);
            } else if (c < ' ' || c > '~') {
                json.append(String.format("\\u%04x", (int) c));
            } else {
                json.append(c);
            }
        }
        return json.append('"').toString();
    }
}
