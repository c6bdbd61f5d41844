using System.Text.Json;
using Ublkback.Block;

namespace Ublkback.Images.Qcow2.Format;

/// <summary>
/// What an image says of its backing file, understood as QEMU does: a path, which may be relative to the folder of the
/// image; <c>file:</c> or <c>host_device:</c> and a path; <c>json:</c> and the options of a file; otherwise the name of
/// something else, such as a server.
/// </summary>
/// <param name="Format">The format: <c>raw</c> or <c>qcow2</c>.</param>
/// <param name="Path">The path; null if it is something else.</param>
/// <param name="Protocol">The word before the colon of something else; empty for a path.</param>
internal sealed record BackingName(string Format, string? Path, string Protocol)
{
    private const string Raw = "raw", Qcow2 = "qcow2";

    // Options that change how a file is read, and not what.
    private static readonly string[] Harmless =
    [
        "node-name", "read-only", "auto-read-only", "locking", "aio", "cache.direct", "cache.no-flush", "discard",
        "detect-zeroes",
    ];

    /// <summary>Understands a name.</summary>
    /// <param name="image">The path of the image, as it was named: a relative name starts in its folder.</param>
    /// <param name="name">The name of the backing file.</param>
    /// <param name="format">The format that the image says it has; null if it says none.</param>
    /// <exception cref="TargetException">It is not understood, or there is no format. Formats are never guessed: the
    /// guest below could have written itself a header.</exception>
    public static BackingName Parse(string image, string name, string? format)
    {
        int colon = name.AsSpan().IndexOfAny(':', '/');
        string protocol = colon > 0 && name[colon] == ':' ? name[..colon] : "";
        string rest = name[(protocol.Length > 0 ? colon + 1 : 0)..];
        if (protocol == "json") return ParseOptions(image, rest, format);
        string known = CheckFormat(image, name, format);
        return protocol is "" or "file" or "host_device"
            ? new BackingName(known, Resolve(image, rest), "")
            : new BackingName(known, null, protocol);
    }

    // '..' is the kernel's to resolve: a folder before it may be a symbolic link.
    private static string Resolve(string image, string path) =>
        path.StartsWith('/') ? path : image[..(image.LastIndexOf('/') + 1)] + path;

    private static string CheckFormat(string image, string name, string? format) => format switch
    {
        Raw or "file" or "host_device" => Raw,
        Qcow2 => Qcow2,
        null => throw new TargetException(
            $"{image} does not say of which format its backing file is",
            $"say so with 'qemu-img rebase -u -F raw -b {name}', or -F qcow2"),
        _ => throw new TargetException(
            $"the backing file of {image} is {format}, and this program knows raw and {Qcow2} there"),
    };

    private static BackingName ParseOptions(string image, string json, string? format)
    {
        Dictionary<string, string> options = [];
        try
        {
            using JsonDocument document = JsonDocument.Parse(json);
            AddOptions(options, "", document.RootElement);
        }
        catch (JsonException failure)
        {
            throw new TargetException(
                $"the backing file of {image} is json:{json}, which cannot be read: {failure.Message}", failure);
        }

        foreach (string option in Harmless.SelectMany(name => new[] { name, $"file.{name}" })) options.Remove(option);
        options.Remove("driver", out string? driver);
        bool isFile = driver is "file" or "host_device";
        string prefix = isFile || options.ContainsKey("filename") ? "" : "file.";
        options.Remove($"{prefix}filename", out string? path);
        if (prefix.Length > 0 && options.Remove($"{prefix}driver", out string? fileDriver)
            && fileDriver is not ("file" or "host_device"))
            throw Refusal($"the driver {fileDriver}");
        if (options.Count > 0) throw Refusal($"the option {options.Keys.First()}");
        if (path is null) throw Refusal("no file name");
        if (!path.StartsWith('/')) throw Refusal($"the relative file name {path}");
        string? said = isFile ? null : driver;
        if (said is not null && format is not null && CheckFormat(image, path, format) != said)
            throw Refusal($"the driver {said}, while its format is {format},");
        return new BackingName(CheckFormat(image, path, said ?? format), path, "");

        TargetException Refusal(string what) => new(
            $"the backing file of {image} is json: with {what}, which this program does not know: name the file "
            + "itself with 'qemu-img rebase -u'");
    }

    private static void AddOptions(Dictionary<string, string> options, string prefix, JsonElement value)
    {
        if (value.ValueKind != JsonValueKind.Object)
        {
            options[prefix] = value.ToString();
            return;
        }

        foreach (JsonProperty property in value.EnumerateObject())
            AddOptions(options, prefix.Length == 0 ? property.Name : $"{prefix}.{property.Name}", property.Value);
    }
}
