//! What the derive of `Message` makes of enums and structs.

use maslite_core::{Message, Topic};

#[derive(Clone, Message)]
enum Order<T: Clone + Send + 'static> {
    Placed {
        pieces: T,
    },
    Changed(T, T),
    #[message(topic = "Gone")]
    Cancelled,
    r#Final,
}

#[derive(Clone, Message)]
struct Reading(#[expect(dead_code, reason = "only the topic is looked at")] f64);

#[derive(Clone, Message)]
#[message(topic = "Temperature")]
struct Celsius;

#[derive(Clone, Message)]
enum Nothing {}

#[test]
fn the_topic_is_the_name_of_the_variant_or_struct_unless_the_attribute_says_otherwise() {
    let orders = [
        Order::Placed { pieces: 1_u8 },
        Order::Changed(1, 2),
        Order::Cancelled,
        Order::Final,
    ];
    let topics = orders.each_ref().map(Message::topic);
    assert_eq!(
        topics,
        ["Placed", "Changed", "Gone", "Final"].map(Topic::new)
    );
    assert_eq!(Reading(1.5).topic(), Topic::new("Reading"));
    assert_eq!(Celsius.topic(), Topic::new("Temperature"));
    let topic_of_nothing: fn(&Nothing) -> Topic = Message::topic;
    let _ = topic_of_nothing;
    let Order::Placed { pieces } = &orders[0] else {
        unreachable!()
    };
    assert_eq!(*pieces, 1);
}
