namespace Ublkback.Block;

/// <summary>
/// A parsed target: the string that names hooks and image, the same in the store, in xl's <c>target=</c> and on the
/// command line.
/// </summary>
/// <remarks>
/// <code>
/// target = *( hook "+" ) image
/// hook   = name [ "(" key "=" value *( "," key "=" value ) ")" ]
/// image  = scheme ":" location [ "?" key "=" value *( "&amp;" key "=" value ) ] | absolute path (means raw)
/// </code>
/// The format comes from the target alone. The content of an image is never probed: a guest could write itself a header
/// that names a file of the host.
/// </remarks>
public sealed record BlockTarget(
    IReadOnlyList<HookTarget> Hooks, string Scheme, string Location, IReadOnlyDictionary<string, string> Options)
{
    /// <summary>Longest target that is accepted, in characters; xenstore's values end at 4096 bytes.</summary>
    public const int MaxLength = 4000;

    /// <summary>The scheme of a plain file or block device.</summary>
    public const string RawScheme = "raw";

    private const string OnErrorOption = "on-error";

    /// <summary>
    /// The option <c>on-error</c>, of any image: <c>report</c> (the default) tells the guest of failed requests,
    /// <c>hold</c> keeps them until the storage is mended.
    /// </summary>
    /// <exception cref="TargetException">The value is neither.</exception>
    public bool HoldsFailed => GetChoice(OnErrorOption, "report", "hold") == "hold";

    /// <summary>Reads a target.</summary>
    /// <exception cref="TargetException">The text is not a target; the message says where and why.</exception>
    public static BlockTarget Parse(string text) => new TargetReader(text).Read();

    /// <summary>The options of a target whose value is one of a few words; the first word is the default.</summary>
    /// <exception cref="TargetException">The value is none of the words.</exception>
    public string GetChoice(string key, params ReadOnlySpan<string> words)
    {
        if (!Options.TryGetValue(key, out string? value)) return words[0];
        return words.Contains(value)
            ? value
            : throw new TargetException(
                $"option {key}={value} of target {Location} is unknown",
                $"use {key}={string.Join($" or {key}=", words.ToArray())}");
    }

    /// <summary>The same target with an option that it does not have yet.</summary>
    public BlockTarget WithDefault(string key, string value) => Options.ContainsKey(key)
        ? this
        : this with { Options = new Dictionary<string, string>(Options) { [key] = value } };

    /// <summary>The same target without an option.</summary>
    public BlockTarget Without(string key) =>
        this with { Options = Options.Where(option => option.Key != key).ToDictionary() };

    /// <summary>Refuses options that the image does not know.</summary>
    /// <exception cref="TargetException">An option has none of the names.</exception>
    public void AllowOnly(params ReadOnlySpan<string> keys)
    {
        foreach (string key in Options.Keys)
        {
            if (!keys.Contains(key) && key != OnErrorOption)
                throw new TargetException($"unknown option {key} in target {Scheme}:{Location}: it takes "
                    + $"{string.Join(", ", keys.ToArray())}, {OnErrorOption}");
        }
    }
}
